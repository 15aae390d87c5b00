"""A loopback server that speaks as much of W&B's API as its own client needs to show a registry.

W&B's server cannot be installed, so this one is ours: it answers what the client of the installed version asks, and
refuses by name what it does not know. What the real one does with the same requests it cannot tell.
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

KEY, REFUSED_KEY = "a" * 40, "0" * 40
ENTITY = "our-team"
_OPERATION = re.compile(r"(?:query|mutation)\s+(\w+)")
_WHEN = "2026-01-01T00:00:00Z"


@dataclass
class Version:
    """Of a collection of models."""

    id: str
    project: str
    collection: str
    digest: str
    description: str | None
    metadata: str
    run: str
    tags: list[str] = field(default_factory=list)
    aliases: set[str] = field(default_factory=set)
    state: str = "PENDING"
    index: int | None = None


class WandbServer:
    """All that it was told; `files` are what was uploaded, by path."""

    def __init__(self) -> None:
        self.public = ""
        """Its URL as clients see it."""
        self.runs: dict[str, dict[str, Any]] = {}
        self.versions: dict[str, Version] = {}
        self.files: dict[str, bytes] = {}
        self.lock = threading.RLock()
        self._answers: dict[str, Callable[[dict[str, Any]], Any]] = {
            "Viewer": self._viewer,
            "GetDefaultEntity": self._viewer,
            "ServerFeaturesQuery": lambda _: {"serverInfo": {"features": []}},
            "RunResumeStatus": self._resume,
            "Run": lambda asked: {"project": {"run": self.runs.get(asked["name"])}},
            "UpsertBucket": self._upsert_run,
            "CreateRunFiles": self._run_files,
            "ProjectArtifacts": self._collection,
            "ArtifactType": self._type,
            "ArtifactByID": lambda asked: {"artifact": self._node(self.versions[asked["id"]])},
            "CreateArtifact": lambda asked: self._create(asked["input"]),
            "CreateArtifactManifest": self._manifest,
            "CreateArtifactFiles": lambda asked: self._artifact_files(asked["input"]),
            "CommitArtifact": self._commit,
            "UpdateArtifact": lambda asked: self._update(asked["input"]),
            "AddAliases": lambda asked: self._add_aliases(asked["input"]),
            "DeleteAliases": lambda asked: self._delete_aliases(asked["input"]),
            "DeleteArtifact": lambda asked: self._delete(asked["input"]),
        }

    def answer(self, query: str, asked: dict[str, Any]) -> dict[str, Any]:
        found = _OPERATION.search(query)
        operation = found[1] if found else "?"
        if operation not in self._answers:
            return {"errors": [{"message": f"this server knows no {operation}"}]}
        with self.lock:
            return {"data": self._answers[operation](asked)}

    def stream(self, run: str, told: dict[str, Any]) -> None:
        """What a run sends while it goes: its summary, and that it ended."""
        with self.lock:
            for line in told.get("files", {}).get("wandb-summary.json", {}).get("content", []):
                self.runs[run]["summaryMetrics"] = line
            if told.get("complete"):
                self.runs[run]["state"] = "failed" if told["exitcode"] else "finished"

    def of(self, collection: str) -> list[Version]:
        """The committed ones, the oldest first."""
        found = [
            one for one in self.versions.values() if one.collection == collection and one.state == "COMMITTED"
        ]
        return sorted(found, key=lambda one: one.index or 0)

    def _viewer(self, _: dict[str, Any]) -> Any:
        viewer = {"id": "me", "entity": ENTITY, "username": "me", "email": "me@example.org", "flags": "{}"}
        return {"viewer": {**viewer, "teams": {"edges": []}}}

    def _resume(self, asked: dict[str, Any]) -> Any:
        run = self.runs.get(asked["name"])
        bucket = run and {
            **run,
            **dict.fromkeys(("logLineCount", "eventsLineCount"), 0),
            **dict.fromkeys(("historyTail", "eventsTail"), "[]"),
            "wandbConfig": "{}",
        }
        model = {"id": "project", "name": asked["project"], "entity": {"id": "team", "name": asked["entity"]}}
        return {"model": {**model, "bucket": bucket}}

    def _upsert_run(self, asked: dict[str, Any]) -> Any:
        name = asked.get("name") or asked["id"].removeprefix("run-")
        is_new = name not in self.runs
        empty = dict.fromkeys(("sweepName", "group", "commit", "description", "notes", "heartbeatAt"))
        run = self.runs.setdefault(
            name,
            {
                **empty,
                "id": f"run-{name}",
                "name": name,
                "displayName": name,
                "tags": [],
                "state": "running",
                **dict.fromkeys(("config", "summaryMetrics", "systemMetrics"), "{}"),
                "historyLineCount": 0,
                "historyKeys": None,
                "createdAt": _WHEN,
                "projectId": "1",
                "project": {"id": "p", "name": asked.get("project"), "entity": {"id": "t", "name": ENTITY}},
            },
        )
        known = ("displayName", "config", "summaryMetrics", "jobType", "state", "notes")
        run |= {key: asked[key] for key in known if asked.get(key) is not None}
        return {"upsertBucket": {"bucket": run, "inserted": is_new}}

    def _run_files(self, asked: dict[str, Any]) -> Any:
        files = [{"name": one, "uploadUrl": self._url(f"{asked['run']}/{one}")} for one in asked["files"]]
        return {"createRunFiles": {"runID": f"run-{asked['run']}", "uploadHeaders": [], "files": files}}

    def _collection(self, asked: dict[str, Any]) -> Any:
        found = [one for one in self.of(asked["collection"]) if one.project == asked["project"]]
        if not found:
            return {"project": None}
        end = (begin := int(asked.get("cursor") or 0)) + asked["perPage"]
        part = {
            "totalCount": len(found),
            "pageInfo": {"__typename": "PageInfo", "endCursor": str(end), "hasNextPage": end < len(found)},
            "edges": [{"version": f"v{one.index}", "node": self._node(one)} for one in found[begin:end]],
        }
        collection = {"__typename": "ArtifactSequence", "artifacts": part}
        return {"project": {"artifactType": {"artifactCollection": collection}}}

    def _type(self, asked: dict[str, Any]) -> Any:
        is_there = self.of(asked["name"].partition(":")[0])
        return {"project": {"artifact": {"artifactType": {"name": "model"}} if is_there else None}}

    def _node(self, one: Version) -> dict[str, Any]:
        project = {"id": "project", "internalId": "1", "name": one.project, "entity": {"name": ENTITY}}
        sequence = {"__typename": "ArtifactSequence", "name": one.collection, "project": project}
        return {
            "__typename": "Artifact",
            "id": one.id,
            "artifactSequence": sequence,
            "versionIndex": one.index,
            "artifactType": {"name": "model"},
            "description": one.description,
            "metadata": one.metadata,
            "ttlDurationSeconds": -2,
            "ttlIsInherited": False,
            "tags": [{"__typename": "Tag", "id": tag, "name": tag} for tag in one.tags],
            **dict.fromkeys(("historyStep", "commitHash", "updatedAt")),
            "state": one.state,
            "size": 1,
            "digest": one.digest,
            "fileCount": 1,
            "createdAt": _WHEN,
            "aliases": [
                {"__typename": "ArtifactAlias", "id": alias, "alias": alias, "artifactCollection": sequence}
                for alias in sorted(one.aliases)
            ],
        }

    def _create(self, asked: dict[str, Any]) -> Any:
        """The same content is the same version; it keeps its metadata, and gets the aliases."""
        collection, aliases = asked["artifactCollectionName"], {one["alias"] for one in asked["aliases"]}
        same = [one for one in self.of(collection) if one.digest == asked["digest"]]
        if same:
            self._give(same[0], aliases)
            return {"createArtifact": {"artifact": {**self._node(same[0]), "artifactSequence": None}}}
        one = Version(
            f"version-{len(self.versions)}",
            asked["projectName"],
            collection,
            asked["digest"],
            asked["description"],
            asked["metadata"],
            asked["runName"],
            [tag["tagName"] for tag in asked.get("tags") or []],
            aliases,
        )
        self.versions[one.id] = one
        sequence = {"id": collection, "latestArtifact": None}
        return {
            "createArtifact": {"artifact": {"id": one.id, "state": one.state, "artifactSequence": sequence}}
        }

    def _manifest(self, asked: dict[str, Any]) -> Any:
        place = f"{asked['artifactID']}/manifest.json"
        file = {"id": place, "name": place, "displayName": place, "uploadUrl": self._url(place)}
        manifest = {"id": asked["artifactID"], "file": {**file, "uploadHeaders": []}}
        return {"createArtifactManifest": {"artifactManifest": manifest}}

    def _artifact_files(self, asked: dict[str, Any]) -> Any:
        edges = []
        for one in asked["artifactFiles"]:
            name, place = one["name"], f"{one['artifactID']}/{one['name']}"
            node = {"id": place, "name": name, "displayName": name, "storagePath": place}
            node |= {"uploadUrl": self._url(place), "uploadHeaders": [], "uploadMultipartUrls": None}
            edges.append({"node": {**node, "artifact": {"id": one["artifactID"]}}})
        return {"createArtifactFiles": {"files": {"edges": edges}}}

    def _commit(self, asked: dict[str, Any]) -> Any:
        one = self.versions[asked["artifactID"]]
        if one.state == "PENDING":
            same = [each for each in self.versions.values() if each.collection == one.collection]
            one.index = sum(each.index is not None for each in same)
            one.state = "COMMITTED"
            self._give(one, one.aliases)
        return {"commitArtifact": {"artifact": {"id": one.id, "digest": one.digest}}}

    def _update(self, asked: dict[str, Any]) -> Any:
        one = self.versions[asked["artifactID"]]
        one.description, one.metadata = asked["description"], asked["metadata"]
        gone = {tag["tagName"] for tag in asked.get("tagsToDelete") or []}
        one.tags = [tag for tag in one.tags if tag not in gone]
        one.tags += [tag["tagName"] for tag in asked.get("tagsToAdd") or []]
        return {"result": {"artifact": self._node(one)}}

    def _give(self, one: Version, aliases: set[str]) -> None:
        for each in self.of(one.collection):
            each.aliases -= aliases if each is not one else set()
        one.aliases |= aliases

    def _add_aliases(self, asked: dict[str, Any]) -> Any:
        self._give(self.versions[asked["artifactID"]], {one["alias"] for one in asked["aliases"]})
        return {"result": {"success": True}}

    def _delete_aliases(self, asked: dict[str, Any]) -> Any:
        self.versions[asked["artifactID"]].aliases -= {one["alias"] for one in asked["aliases"]}
        return {"result": {"success": True}}

    def _delete(self, asked: dict[str, Any]) -> Any:
        one = self.versions[asked["artifactID"]]
        assert asked["deleteAliases"] or not one.aliases - {"latest"}, "they are to go with it"
        one.state = "DELETED"
        return {"result": {"artifact": {"id": one.id}}}

    def _url(self, place: str) -> str:
        return f"{self.public}/upload/{place}"


def serve(server: WandbServer) -> ThreadingHTTPServer:
    """On a port of its own; the caller ends it."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            _, _, key = (self.headers.get("Authorization") or "").partition("Basic ")
            if base64.b64decode(key).endswith(REFUSED_KEY.encode()):
                return self.say(401, {"errors": [{"message": "user is not logged in"}]})
            if self.path == "/graphql":
                asked = json.loads(body)
                return self.say(200, server.answer(asked["query"], asked.get("variables") or {}))
            if self.path.startswith("/upload/"):
                server.files[self.path.removeprefix("/upload/")] = body
            elif self.path.endswith("/file_stream"):
                server.stream(self.path.split("/")[-2], json.loads(body))
            return self.say(200, {})

        def say(self, status: int, told: dict[str, Any]) -> None:
            content = json.dumps(told).encode()
            self.send_response_only(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing."""

        do_GET = do_POST = do_PUT = do_any

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listening.daemon_threads = True
    threading.Thread(target=listening.serve_forever, args=(0.02,), daemon=True).start()
    return listening
