"""Cases, contenders and goals of the benchmark: the only place with these figures."""

from collections.abc import Mapping
from dataclasses import dataclass, field

MODELFETCH = "modelfetch"
_LIKE_FOR_LIKE = "s5cmd cp, sha256sum -c"


@dataclass(frozen=True)
class Goal:
    """Upper limit of a ratio or figure; None: reported only.

    Attributes:
        ours: the modelfetch contender.
        peer: the contender to divide by; empty: the figure itself is judged.
        metric: wall or cpu (seconds), readable (wall plus reading all back), rss (bytes), requests.
        at_most: ratio or figure.
    """

    ours: str
    peer: str
    metric: str
    at_most: float | None


def goals_against(peer: str, ours: str = MODELFETCH, **at_most: float | None) -> tuple[Goal, ...]:
    """Return goals against a peer, by metric."""
    return tuple(Goal(ours, peer, metric, value) for metric, value in at_most.items())


def python_peer_goals(*peers: str) -> tuple[Goal, ...]:
    """Return goals against peers that move all bytes in Python."""
    return tuple(goal for peer in peers for goal in goals_against(peer, cpu=0.42, wall=0.55))


@dataclass(frozen=True)
class Case:
    """A piece of work and its contenders, run in turn in each round.

    Attributes:
        name: for `--only`.
        title: for the table.
        expects: key prefix of the objects expected afterwards.
        commands: by contender, in the words of `programs`; run by bash if several programs take part.
        goals: the goals to judge.
        round_factor: multiple of the usual number of rounds.
        second_run: measure a second run on top of a first.
        high_latency: through a proxy with latency.
        many_files: enough files for the cost of file creation to show.
        single_round: no further rounds.
        memory_limited: in a memory cgroup.
        needs: programs of this machine, by contender.
    """

    name: str
    title: str
    expects: str
    commands: Mapping[str, str]
    goals: tuple[Goal, ...]
    round_factor: int = 1
    second_run: bool = False
    high_latency: bool = False
    many_files: bool = False
    single_round: bool = False
    memory_limited: bool = False
    needs: Mapping[str, str] = field(default_factory=dict)


CASES = (
    Case(
        "large-s3",
        "2 GiB object, S3",
        "large.bin",
        {
            MODELFETCH: "{modelfetch} pull s3://bench/large.bin {dest}/large.bin",
            "s5cmd cp": "{s5cmd} cp s3://bench/large.bin {dest}/",
            _LIKE_FOR_LIKE: "{s5cmd} cp s3://bench/large.bin {dest}/ && sha256sum -c {sums}",
            "rclone copyto, sha256sum -c": "{rclone} copyto s3:bench/large.bin {dest}/large.bin && sha256sum -c {sums}",
            "kserve-storage": "{kserve} s3://bench/large.bin {dest}",
            "aws s3 cp": "{aws} s3 cp --only-show-errors s3://bench/large.bin {dest}/",
            "boto3 download_file": "{boto3} bench large.bin {dest}/large.bin",
        },
        goals_against("s5cmd cp", cpu=1.0, wall=1.0, readable=None)
        + goals_against(_LIKE_FOR_LIKE, cpu=0.75, wall=0.7)
        + goals_against("rclone copyto, sha256sum -c", cpu=1.0, wall=0.8)
        + python_peer_goals("kserve-storage", "aws s3 cp", "boto3 download_file"),
    ),
    Case(
        "large-gcs",
        "2 GiB object, GCS",
        "large.bin",
        {
            MODELFETCH: "{modelfetch} pull gs://bench/large.bin {dest}/large.bin",
            "rclone copyto, sha256sum -c": "{rclone} copyto gcs:bench/large.bin {dest}/large.bin"
            " && sha256sum -c {sums}",
            "kserve-storage": "{kserve} gs://bench/large.bin {dest}",
            "google-cloud-storage": "{gcs} bench large.bin {dest}/large.bin",
        },
        goals_against("rclone copyto, sha256sum -c", cpu=1.0, wall=0.8)
        + python_peer_goals("kserve-storage", "google-cloud-storage"),
    ),
    Case(
        "archive",
        "404 MB tar.gz of float weights, extracted",
        "model/",
        {
            MODELFETCH: "{modelfetch} pull s3://bench/model.tar.gz {dest}/model",
            "kserve-storage": "{kserve} s3://bench/model.tar.gz {dest}",
            "s5cmd cp, tar xzf": "{s5cmd} cp s3://bench/model.tar.gz {dest}/ && tar xzf {dest}/model.tar.gz -C {dest}"
            " && rm {dest}/model.tar.gz",
            "s5cmd cat, pigz, tar": "{s5cmd} cat s3://bench/model.tar.gz | pigz -dc | tar x -C {dest}",
            "modelfetch, tar.zst": "{modelfetch} pull s3://bench/model.tar.zst {dest}/model",
            "modelfetch, directory": "{modelfetch} pull s3://bench/model/ {dest}/model",
        },
        goals_against("kserve-storage", wall=0.6, cpu=None)
        + goals_against("s5cmd cp, tar xzf", wall=0.6, cpu=None)
        + goals_against("s5cmd cat, pigz, tar", wall=0.75, cpu=None)
        + goals_against(MODELFETCH, "modelfetch, tar.zst", wall=0.6, cpu=None)
        + goals_against(MODELFETCH, "modelfetch, directory", wall=0.4, cpu=None),
        needs={"s5cmd cat, pigz, tar": "pigz"},
    ),
    Case(
        "small",
        "2,000 files of 10 to 50 kB",
        "small/",
        {
            MODELFETCH: "{modelfetch} pull s3://bench/small/ {dest}/model",
            "s5cmd cp": "{s5cmd} cp s3://bench/small/* {dest}/",
            "kserve-storage": "{kserve} s3://bench/small {dest}",
        },
        goals_against("s5cmd cp", wall=0.8, cpu=None) + goals_against("kserve-storage", wall=0.15, cpu=None),
        many_files=True,
    ),
    Case(
        "shards",
        "30 files of 64 MB",
        "shards/",
        {
            MODELFETCH: "{modelfetch} pull s3://bench/shards/ {dest}/model",
            "s5cmd cp": "{s5cmd} cp s3://bench/shards/* {dest}/",
        },
        goals_against("s5cmd cp", wall=1.0, cpu=None),
    ),
    Case(
        "tiny",
        "4.1 MB model, from exec to exit",
        "tiny.bin",
        {
            MODELFETCH: "{modelfetch} pull s3://bench/tiny.bin {dest}/tiny.bin",
            "modelfetch, GCS": "{modelfetch} pull gs://bench/tiny.bin {dest}/tiny.bin",
            "kserve-storage": "{kserve} s3://bench/tiny.bin {dest}",
            "kserve-storage, GCS": "{kserve} gs://bench/tiny.bin {dest}",
            "boto3 script": "{boto3} bench tiny.bin {dest}/tiny.bin",
            "google-cloud-storage script": "{gcs} bench tiny.bin {dest}/tiny.bin",
        },
        goals_against("kserve-storage", wall=0.6, cpu=None)
        + goals_against("kserve-storage, GCS", "modelfetch, GCS", wall=0.9, cpu=None)
        + goals_against("boto3 script", wall=1.15, cpu=None)
        + goals_against("google-cloud-storage script", "modelfetch, GCS", wall=1.15, cpu=None),
        round_factor=3,
    ),
    Case(
        "again",
        "second run, nothing changed",
        "model/",
        {
            MODELFETCH: "{modelfetch} pull s3://bench/model/ {dest}/model",
            "s5cmd sync": "{s5cmd} sync s3://bench/model/* {dest}/",
            "aws s3 sync": "{aws} s3 sync --only-show-errors s3://bench/model/ {dest}/",
        },
        (
            Goal(MODELFETCH, "", "requests", 1),
            *goals_against("aws s3 sync", wall=1.0),
            *goals_against("s5cmd sync", wall=None),
        ),
        round_factor=3,
        second_run=True,
    ),
    Case(
        "far",
        "1 GiB object, 100 ms round trip, 20 MB/s a connection",
        "far.bin",
        {
            MODELFETCH: "{modelfetch} pull s3://bench/far.bin {dest}/far.bin",
            "s5cmd cp": "{s5cmd} cp s3://bench/far.bin {dest}/",
            "rclone copyto": "{rclone} copyto s3:bench/far.bin {dest}/far.bin",
        },
        goals_against("s5cmd cp", wall=1.1) + goals_against("rclone copyto", wall=1.1),
        high_latency=True,
    ),
    Case(
        "sparse",
        "20 GiB of zeros",
        "sparse.bin",
        {MODELFETCH: "{modelfetch} pull s3://bench/sparse.bin {dest}/sparse.bin"},
        (),
        single_round=True,
    ),
    Case(
        "confined",
        "2 GiB object in a memory cgroup of 192 MiB",
        "large.bin",
        {MODELFETCH: "{modelfetch} pull s3://bench/large.bin {dest}/large.bin"},
        (),
        single_round=True,
        memory_limited=True,
    ),
)

MOST_RSS = 128 * 1024**2  # bytes; of any run of modelfetch
MOST_PACKAGES = 90 * 10**6  # bytes of site-packages
CGROUP = 192 * 1024**2
