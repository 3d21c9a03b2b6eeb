"""The fixtures of all tests: real servers, the fault proxy, the command line, a clean environment."""

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from pathlib import Path

import pytest
from _pytest import runner

from testkit import mounts, servers
from testkit.cli_runner import CliRunner
from testkit.fault_proxy import FaultProxy
from testkit.https_server import HttpsServer, run_https_server
from testkit.scripted_server import ScriptedServer, run_scripted_server
from testkit.stores import GCSBucket, GCSServer, ModelFolder, S3Bucket, S3Server, Store

# The campaigns work in threads while pytest goes from test to test. It would note each in os.environ, and whoever goes
# through that meanwhile, as requests does for every request, fails.
runner._update_current_test_var = lambda *_: None  # there is no setting

GIVEN_S3 = os.environ.get("MODELFETCH_TEST_S3_ENDPOINT", "")
GIVEN_GCS = os.environ.get("MODELFETCH_TEST_GCS_ENDPOINT", "")
GIVEN_KEYS = (os.environ.get("AWS_ACCESS_KEY_ID", ""), os.environ.get("AWS_SECRET_ACCESS_KEY", ""))
KEYS = ("rig-access-key", "rig-secret-key-0123456789")
ABSENCES: dict[servers.Program, str] = {}  # what was found out about each program
OF_EITHER = ("store", "versioned_store", "flat_store", "shelf")  # fixtures that choose a server as they go
OF_THE_DEVELOPER = (
    "AWS_", "AZURE_", "CLOUDSDK_", "FORCE_COLOR", "GCE_", "GCLOUD_", "GCS_", "GOOGLE_", "KUBERNETES_",
    "LOCAL_MODEL_PATH", "MODEL_", "MODELFETCH_", "MODELSERVE_", "NO_COLOR", "REQUESTS_CA_BUNDLE", "S3_", "SSL_CERT_",
    "CURL_CA_BUNDLE", "STORAGE_",
)  # fmt: skip
PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of `make faults`."""
    group = parser.getgroup("modelfetch")
    group.addoption("--full", action="store_true", help="run the campaigns of tests/faults in full")
    group.addoption("--campaign-report", metavar="PATH", help="write the campaigns' tables to PATH.md and PATH.json")


def explain_absence(program: servers.Program) -> str:
    """Return why this program is not used, or "" once it is built; the answer holds for the whole run."""
    if program not in ABSENCES:
        ABSENCES[program] = servers.explain_absence(program)
    return ABSENCES[program]


def pytest_report_header() -> list[str]:
    """Say which servers the tests will use; none is started yet."""
    usable = {each: each.path.exists() or servers.can_build() for each in (servers.MINIO, servers.FAKE_GCS)}
    s3 = GIVEN_S3 or (str(servers.MINIO) if usable[servers.MINIO] else "moto (embedded)")
    gcs = GIVEN_GCS or (str(servers.FAKE_GCS) if usable[servers.FAKE_GCS] else "none")
    return [f"S3: {s3}; GCS: {gcs}"]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Build the servers that the collected tests need, before any test's time is taken."""
    if session.config.option.collectonly:
        return
    requested = {name for item in session.items for name in getattr(item, "fixturenames", ())}
    needed = {
        servers.MINIO: not GIVEN_S3 and requested & {"s3", *OF_EITHER},
        servers.FAKE_GCS: not GIVEN_GCS and requested & {"gcs", *OF_EITHER},
        servers.TOXIPROXY: requested & {"toxiproxy"},
    }
    try:
        for program in filter(needed.get, needed):
            explain_absence(program)
    except servers.BuildError as error:
        pytest.exit(str(error), returncode=3)


@pytest.fixture(autouse=True, scope="session")
def clean_environ(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test sees the developer's credentials, endpoints, proxies or settings, or waits for a metadata server."""
    nowhere = str(tmp_path_factory.getbasetemp() / "nowhere")
    with pytest.MonkeyPatch.context() as environ:
        for name in list(os.environ):
            if name.startswith(OF_THE_DEVELOPER) or name.upper() in PROXIES:
                environ.delenv(name)
        for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "CLOUDSDK_CONFIG"):
            environ.setenv(name, nowhere)
        for name in ("AWS_EC2_METADATA_DISABLED", "NO_GCE_CHECK"):
            environ.setenv(name, "true")
        yield


def _s3_server(directory: Path) -> tuple[AbstractContextManager[str], tuple[str, str], str]:
    if GIVEN_S3:
        return nullcontext(GIVEN_S3), GIVEN_KEYS, "given"
    if explain_absence(servers.MINIO):
        return servers.run_moto(directory), KEYS, "moto"
    return servers.run_minio(directory, *KEYS), KEYS, "minio"


@pytest.fixture(scope="session")
def s3() -> Iterator[S3Server]:
    """Return a real S3 server: the given endpoint, else MinIO, else moto."""
    with tempfile.TemporaryDirectory(prefix="modelfetch-s3-") as directory:
        server, keys, kind = _s3_server(Path(directory))
        with server as endpoint, closing(S3Server(endpoint, *keys, kind)) as handle:
            yield handle


@pytest.fixture(scope="session")
def gcs() -> Iterator[GCSServer]:
    """A real GCS emulator: the one given, else fake-gcs-server."""
    if not GIVEN_GCS and (absence := explain_absence(servers.FAKE_GCS)):
        pytest.skip(f"{absence}; MODELFETCH_TEST_GCS_ENDPOINT names another GCS server")
    with tempfile.TemporaryDirectory(prefix="modelfetch-gcs-") as directory:
        server = nullcontext(GIVEN_GCS) if GIVEN_GCS else servers.run_fake_gcs(Path(directory))
        with server as endpoint:
            handle = GCSServer(endpoint, "given" if GIVEN_GCS else "fake-gcs-server")
            with closing(handle.client):
                yield handle


@pytest.fixture(scope="session")
def toxiproxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a toxiproxy's API."""
    if absence := explain_absence(servers.TOXIPROXY):
        pytest.skip(absence)
    with servers.run_toxiproxy(tmp_path_factory.mktemp("toxiproxy")) as api:
        yield api


@pytest.fixture(scope="session")
def moto() -> Iterator[S3Server]:
    """Run moto's S3 server, which needs no Go, the default of `make demo`."""
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="modelfetch-moto-"))
        url = stack.enter_context(servers.run_moto(Path(directory)))
        yield stack.enter_context(closing(S3Server(url, *KEYS, "moto")))


@pytest.fixture
def s3_bucket(s3: S3Server) -> Iterator[S3Bucket]:
    """Create an empty bucket on S3."""
    with s3.new_bucket() as bucket:
        yield bucket


@pytest.fixture
def s3_versioned(s3: S3Server) -> Iterator[S3Bucket]:
    """Create an empty bucket on S3 with versioning."""
    with s3.new_bucket(versioned=True) as bucket:
        yield bucket


@pytest.fixture
def gcs_bucket(gcs: GCSServer) -> Iterator[GCSBucket]:
    """Create an empty bucket on GCS."""
    with gcs.new_bucket() as bucket:
        yield bucket


@pytest.fixture
def gcs_versioned(gcs: GCSServer) -> Iterator[GCSBucket]:
    """Create an empty bucket on GCS with versioning."""
    with gcs.new_bucket(versioned=True) as bucket:
        yield bucket


@pytest.fixture
def folder(tmp_path_factory: pytest.TempPathFactory) -> ModelFolder:
    """Return an empty directory to pull from."""
    return ModelFolder(tmp_path_factory.mktemp("folder"))


@pytest.fixture(params=["s3", "gcs"])
def store(request: pytest.FixtureRequest) -> Store:
    """Create an empty bucket; the test runs once on each kind of store."""
    bucket: Store = request.getfixturevalue(f"{request.param}_bucket")
    return bucket


@pytest.fixture
def moto_bucket(moto: S3Server) -> Iterator[S3Bucket]:
    """Create an empty bucket on moto."""
    with moto.new_bucket() as bucket:
        yield bucket


@pytest.fixture(params=["moto", "gcs"])
def flat_store(request: pytest.FixtureRequest) -> Store:
    """Create a bucket that keeps `a` and `a/b` side by side, as real stores do; MinIO's listings hide the latter."""
    bucket: Store = request.getfixturevalue(f"{request.param}_bucket")
    return bucket


@pytest.fixture(params=["s3", "gcs"])
def versioned_store(request: pytest.FixtureRequest) -> Store:
    """Create an empty bucket with versioning; the test runs once on each kind of store."""
    bucket: Store = request.getfixturevalue(f"{request.param}_versioned")
    return bucket


@pytest.fixture
def https_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpsServer]:
    """Run an HTTPS server with a certificate of an authority unknown to the system."""
    with run_https_server(tmp_path_factory.mktemp("web")) as server:
        yield server


@pytest.fixture
def scripted_server() -> Iterator[ScriptedServer]:
    """Run a server whose responses the test scripts."""
    with run_scripted_server() as server:
        yield server


@pytest.fixture
def fault_proxy() -> Iterator[Callable[..., FaultProxy]]:
    """Return a function that puts a fault proxy before a server's URL (and its side of TLS)."""
    with ExitStack() as proxies:
        yield lambda upstream, tls=None: proxies.enter_context(closing(FaultProxy(upstream, tls)))


@pytest.fixture
def modelfetch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CliRunner]:
    """Return the runner of the command line in a clean environment."""
    with closing(CliRunner(tmp_path_factory.mktemp("home"))) as cli:
        yield cli


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Return a function that mounts a tmpfs below the test's directory; needs root."""
    with ExitStack() as stack:

        def mount(name: str, options: str = "size=64m") -> Path:
            try:
                return stack.enter_context(mounts.mount_tmpfs(tmp_path / name, options))
            except mounts.CannotMountError as error:
                pytest.skip(str(error))

        yield mount
