"""A server on this machine that speaks as much of the Hugging Face Hub's API as downloads of a file at a revision and
commits need: names of repositories, revisions and files, tokens, regular uploads and those by Git LFS."""

import base64
import hashlib
import json
import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

WRITE, READ = "hf_may_write", "hf_may_read"  # tokens


@dataclass
class Repository:
    """Commits by their hash, each all files by name, and the commits that branches and tags name."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)

    def commit(self, files: dict[str, bytes]) -> str:
        """A commit on main, of these files above those that were there; its hash."""
        files = self.commits.get(self.refs.get("main", ""), {}) | files
        oid = hashlib.sha1(repr((len(self.commits), sorted(files))).encode()).hexdigest()
        self.commits[oid] = files
        self.refs["main"] = oid
        return oid


class FakeHub(ThreadingHTTPServer):
    """``with FakeHub() as hub: …``, at ``hub.url``; ``requests`` are those that came."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.elsewhere = f"http://localhost:{self.server_port}"  # large files lie on another host, as the Hub's do
        self.repositories: dict[str, Repository] = {}
        self.objects: dict[str, bytes] = {}  # of Git LFS, by SHA-256
        self.gated: set[str] = set()
        self.sizes: dict[str, int] = {}  # that are told of files, instead of the right ones
        self.broken: set[str] = set()  # names of repositories that it fails at
        self.requests: list[str] = []

    @staticmethod
    def repository(files: dict[str, bytes]) -> Repository:
        """With one commit of these files."""
        made = Repository()
        made.commit(files)
        return made

    def as_lfs(self, content: bytes) -> None:
        """From now on a file of this content is redirected to, as the large ones are."""
        self.objects[hashlib.sha256(content).hexdigest()] = content

    def __enter__(self) -> "FakeHub":
        threading.Thread(target=self.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.shutdown()
        self.server_close()


class Handler(BaseHTTPRequestHandler):
    """One request."""

    server: FakeHub
    protocol_version = "HTTP/1.1"

    def log_message(self, *words: object) -> None:
        """Silence."""

    def answer(self, status: int, content: bytes | dict = b"", **headers: str) -> None:
        if isinstance(content, dict):
            content = json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status: int, code: str) -> None:
        self.answer(status, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    @property
    def token(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def do_GET(self) -> None:
        if self.path == "/api/agent-harnesses":  # huggingface_hub may ask, for its statistics
            return self.refuse(404, "NotFound")
        self.server.requests.append(f"{self.command} {self.path}")
        if self.path.startswith("/cdn/"):
            return self.answer(200, self.server.objects[self.path.removeprefix("/cdn/")])
        name, found, rest = self.path.lstrip("/").partition("/resolve/")
        if not found:
            return self.refuse(404, "NotFound")
        revision, _, file = (unquote(part) for part in rest.partition("/"))
        repository = self.server.repositories.get(name)
        if repository is None:
            return self.refuse(404 if self.token else 401, "RepoNotFound")
        if name in self.server.broken:
            return self.answer(501)
        if name in self.server.gated:
            return self.refuse(403, "GatedRepo")
        oid = repository.refs.get(revision, revision)
        if oid not in repository.commits:
            return self.refuse(404, "RevisionNotFound")
        if file not in repository.commits[oid]:
            return self.refuse(404, "EntryNotFound")
        content = repository.commits[oid][file]
        digest = hashlib.sha256(content).hexdigest()
        if digest in self.server.objects:
            size = str(self.server.sizes.get(file, len(content)))
            linked = {
                "X_Linked_Size": size,
                "X_Linked_ETag": f'"{digest}"',
                "Location": f"{self.server.elsewhere}/cdn/{digest}",
            }
            return self.answer(302, b"", X_Repo_Commit=oid, **linked)
        self.answer(200, content, X_Repo_Commit=oid, ETag=f'"{digest}"')

    do_HEAD = do_GET

    def do_PUT(self) -> None:
        self.server.requests.append(f"PUT {self.path}")
        content = self.body()
        digest = hashlib.sha256(content).hexdigest()
        if f"/lfs/{digest}" != self.path:
            return self.refuse(400, "BadDigest")
        self.server.objects[digest] = content
        self.answer(200)

    def do_POST(self) -> None:
        self.server.requests.append(f"POST {self.path}")
        body, path = self.body(), self.path
        if path == "/api/validate-yaml":
            ok = json.loads(body)["content"].startswith("---\nlicense:")
            return self.answer(200 if ok else 400, {"errors": [], "warnings": []})
        if self.token != WRITE:
            return self.refuse(403 if self.token == READ else 401, "Forbidden")
        if path == "/api/repos/create":
            about = json.loads(body)
            name = f"{about['organization']}/{about['name']}"
            status = 409 if name in self.server.repositories else 200
            self.server.repositories.setdefault(name, Repository())
            return self.answer(status, {"url": f"{self.server.url}/{name}"})
        if path.endswith("/info/lfs/objects/batch"):
            wanted = json.loads(body)["objects"]
            objects = [
                each | {"actions": {"upload": {"href": f"{self.server.url}/lfs/{each['oid']}"}}} for each in wanted
            ]
            return self.answer(200, {"transfer": "basic", "objects": objects})
        name, verb = path.removeprefix("/api/models/").rsplit("/", 2)[:2]
        if verb == "preupload":
            files = [
                {
                    "path": each["path"],
                    "uploadMode": "regular" if each["path"].endswith((".md", ".json")) else "lfs",
                    "shouldIgnore": False,
                }
                for each in json.loads(body)["files"]
            ]
            return self.answer(200, {"files": files})
        files = {}
        for line in map(json.loads, body.splitlines()):
            value = line["value"]
            if line["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
        oid = self.server.repositories[name].commit(files)
        url = f"{self.server.url}/{name}/commit/{oid}"
        self.answer(200, {"success": True, "commitUrl": url, "commitOid": oid})
