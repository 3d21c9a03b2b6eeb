"""What is measured, against what, and which ratio is to be reached: the one place that says so."""

from collections.abc import Mapping
from dataclasses import dataclass, field

MODELFETCH = "modelfetch"
_LIKE_FOR_LIKE = "s5cmd cp, sha256sum -c"


@dataclass(frozen=True)
class Goal:
    """At most this; None: only to be told.

    Attributes:
        ours: the contender of ours.
        peer: whom it is divided by; empty: its own figure is judged.
        metric: wall or cpu (seconds), readable (wall, and reading all back), rss (bytes), requests.
        at_most: ratio, or figure.
    """

    ours: str
    peer: str
    metric: str
    at_most: float | None


def against(peer: str, ours: str = MODELFETCH, **at_most: float | None) -> tuple[Goal, ...]:
    """Goals against one peer, by metric."""
    return tuple(Goal(ours, peer, metric, value) for metric, value in at_most.items())


def plain(*peers: str) -> tuple[Goal, ...]:
    """Goals against what moves all bytes in Python."""
    return tuple(goal for peer in peers for goal in against(peer, cpu=0.42, wall=0.55))


@dataclass(frozen=True)
class Case:
    """One piece of work and who does it, in this order, again and again.

    Attributes:
        name: for `--only`.
        title: for the table.
        expects: prefix of the keys whose bytes must be there afterwards.
        commands: of each contender, in the words of `programs`; run by bash if it takes more than one program.
        goals: what is judged.
        times: how many times as many rounds as usual.
        again: measured is a second run on top of a first.
        far: through a proxy with latency.
        many: files, so that it shows what making one costs.
        once: there are no further rounds.
        confined: in a memory cgroup.
        needs: programs that a contender needs from this machine.
    """

    name: str
    title: str
    expects: str
    commands: Mapping[str, str]
    goals: tuple[Goal, ...]
    times: int = 1
    again: bool = False
    far: bool = False
    many: bool = False
    once: bool = False
    confined: bool = False
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
        against("s5cmd cp", cpu=1.0, wall=1.0, readable=None)
        + against(_LIKE_FOR_LIKE, cpu=0.75, wall=0.7)
        + against("rclone copyto, sha256sum -c", cpu=1.0, wall=0.8)
        + plain("kserve-storage", "aws s3 cp", "boto3 download_file"),
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
        against("rclone copyto, sha256sum -c", cpu=1.0, wall=0.8) + plain("kserve-storage", "google-cloud-storage"),
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
        against("kserve-storage", wall=0.6, cpu=None)
        + against("s5cmd cp, tar xzf", wall=0.6, cpu=None)
        + against("s5cmd cat, pigz, tar", wall=0.75, cpu=None)
        + against(MODELFETCH, "modelfetch, tar.zst", wall=0.6, cpu=None)
        + against(MODELFETCH, "modelfetch, directory", wall=0.4, cpu=None),
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
        against("s5cmd cp", wall=0.8, cpu=None) + against("kserve-storage", wall=0.15, cpu=None),
        many=True,
    ),
    Case(
        "shards",
        "30 files of 64 MB",
        "shards/",
        {
            MODELFETCH: "{modelfetch} pull s3://bench/shards/ {dest}/model",
            "s5cmd cp": "{s5cmd} cp s3://bench/shards/* {dest}/",
        },
        against("s5cmd cp", wall=1.0, cpu=None),
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
        against("kserve-storage", wall=0.6, cpu=None)
        + against("kserve-storage, GCS", "modelfetch, GCS", wall=0.9, cpu=None)
        + against("boto3 script", wall=1.15, cpu=None)
        + against("google-cloud-storage script", "modelfetch, GCS", wall=1.15, cpu=None),
        times=3,
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
        (Goal(MODELFETCH, "", "requests", 1), *against("aws s3 sync", wall=1.0), *against("s5cmd sync", wall=None)),
        times=3,
        again=True,
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
        against("s5cmd cp", wall=1.1) + against("rclone copyto", wall=1.1),
        far=True,
    ),
    Case(
        "sparse",
        "20 GiB of zeros",
        "sparse.bin",
        {MODELFETCH: "{modelfetch} pull s3://bench/sparse.bin {dest}/sparse.bin"},
        (),
        once=True,
    ),
    Case(
        "confined",
        "2 GiB object in a memory cgroup of 192 MiB",
        "large.bin",
        {MODELFETCH: "{modelfetch} pull s3://bench/large.bin {dest}/large.bin"},
        (),
        once=True,
        confined=True,
    ),
)

MOST_RSS = 128 * 1024**2  # bytes; of any run of ours
MOST_PACKAGES = 90 * 10**6  # bytes of site-packages
CGROUP = 192 * 1024**2
