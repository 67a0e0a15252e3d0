"""The /v1 routes of gym-http-api: the table, the handlers, every error as JSON {"message": text}.

Every path works with and without its trailing slash, and with doubled slashes, without redirects. Bodies are read by
`wire`, and only where a route needs one: clients send null, "", [], {}, nothing or more where it needs none.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from whorl.apps.guard import loopback
from whorl.apps.gym_server import ids, vectors
from whorl.apps.gym_server.instances import Instance, Instances, Session
from whorl.apps.gym_server.monitor import flag, score
from whorl.apps.gym_server.service import Service, client, fields, service
from whorl.apps.gym_server.settings import Settings
from whorl.apps.gym_server.wire import BOUNDS, choice, parsed, required, text, whole, written
from whorl.errors import BadInput, WhorlError
from whorl.folders import confined

logger = logging.getLogger("whorl")

HERE = "on this server"  # for the words of `confined`

Handler = Callable[[Request], Awaitable[Response]]


def application(settings: Settings, root: Path, stop: Callable[[], None]) -> ASGIApp:
    """The server as an ASGI application, without its guard. Everything that is open is closed at its end."""

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        secret = not loopback(settings.host)
        instances = Instances(settings.max_envs, settings.idle, settings.patience, secret)
        app.state.service = Service(settings, root, instances, stop)
        reaper = asyncio.create_task(instances.reap())
        try:
            yield
        finally:
            reaper.cancel()
            await instances.close_all()

    ids.register_libraries()
    table = {**ROUTES, **vectors.ROUTES}
    routes = [Route(path, _endpoint(handlers), methods=list(handlers)) for path, handlers in table.items()]
    app = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _refused})
    app.router.redirect_slashes = False

    async def tolerant(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope = {**scope, "path": re.sub("/{2,}", "/", scope["path"]).rstrip("/") or "/"}
        await app(scope, receive, send)

    return tolerant


def _endpoint(handlers: dict[str, Handler]) -> Handler:
    async def answer(request: Request) -> Response:
        service(request).instances.seen(client(request))
        try:
            return await handlers["GET" if request.method == "HEAD" else request.method](request)
        except BadInput as error:
            return failure(400, str(error))
        except HTTPException:
            raise
        except Exception as error:
            id = secrets.token_hex(4)
            logger.error("internal error %s in %s %a", id, request.method, request.url.path[:200], exc_info=error)
            what = str(error) if isinstance(error, WhorlError) else type(error).__name__
            return failure(500, f"internal error {id}: {what}")

    return answer


async def _refused(request: Request, error: Exception) -> Response:
    """404, 405 and the like; OPTIONS is answered here, since every path knows its methods."""
    assert isinstance(error, HTTPException)
    if error.status_code == 405 and request.method == "OPTIONS":
        return Response(status_code=204, headers=error.headers)
    message = {404: f"there is no route {request.url.path[:100]}", 405: f"{request.method} is not for this route"}
    said = error.detail if error.detail not in ("Not Found", "Method Not Allowed") else message[error.status_code]
    return failure(error.status_code, said, error.headers)


def failure(status: int, message: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(written({"message": message}), status, headers, "application/json")


def done(content: bytes) -> Response:
    return Response(content, 200, media_type="application/json")


def nothing(request: Request) -> Response:
    """Success without a value: 204, and 200 {} for clients that take 200 only (C++) and say so."""
    wanted = (request.query_params.get("json"), request.headers.get("x-empty-as-json"))
    if service(request).settings.empty_as_json or "1" in wanted:
        return done(b"{}")
    return Response(status_code=204, media_type="text/html")  # with charset=utf-8: the original's, and Haskell wants it


def instance(request: Request) -> Instance:
    """The one that the path names. Raises BadInput with the words that clients know."""
    id = request.path_params["id"]
    if found := service(request).instances.find(id, Session):
        return found
    raise BadInput(f"Instance_id {id[:100]} unknown")


# --------------------------------------------------------------------------------------------------- the routes


async def create(request: Request) -> Response:
    """Beside the original's env_id and seed: flatten (observations as one flat Box), bounds (see `wire.decoded`)."""
    body, here = await fields(request), service(request)
    env_id, seed = required(body, "env_id"), whole(body, "seed")
    flatten, bounds = flag(body.get("flatten"), "flatten"), choice(body, "bounds", BOUNDS)

    def make() -> Session:
        env = ids.single(env_id, here.settings.allow, flatten)
        return Session(env_id, env, seed, bounds, here.settings.lenient)

    ids.resolved(env_id, here.settings.allow)  # before a thread is started for it
    made = await here.instances.open(env_id, make, client(request))
    return done(written({"instance_id": made.id}))


async def list_all(request: Request) -> Response:
    """The server has always said `all_envs`, its documentation `envs`."""
    listed = service(request).instances.listed(Session)
    return done(written({"all_envs": listed, "envs": listed}))


async def reset(request: Request) -> Response:
    """Any body will do; the seed counts where it is an object with one."""
    here, body = instance(request), None
    with contextlib.suppress(BadInput):  # the protocol takes garbage here
        body = parsed(await request.body())
    seed = whole(body, "seed") if isinstance(body, dict) else None
    return done(await here.ask(lambda: written(here.holds.reset(seed))))


async def step(request: Request) -> Response:
    here, body = instance(request), await fields(request)
    action, render = required(body, "action"), flag(body.get("render"), "render")
    return done(await here.ask(lambda: written(here.holds.step(action, render))))


async def action_space(request: Request) -> Response:
    here = instance(request)
    return done(await here.ask(lambda: written(here.holds.action_space())))


async def sample(request: Request) -> Response:
    here = instance(request)
    return done(await here.ask(lambda: written(here.holds.sample())))


async def contains(request: Request) -> Response:
    here, action = instance(request), request.path_params.get("x", "")
    return done(await here.ask(lambda: written(here.holds.action_member(action))))


async def observation_space(request: Request) -> Response:
    here = instance(request)
    return done(await here.ask(lambda: written(here.holds.observation_space())))


async def observation_contains(request: Request) -> Response:
    here, body = instance(request), await fields(request)
    return done(await here.ask(lambda: written(here.holds.observation_properties(body))))


async def monitor_start(request: Request) -> Response:
    here, body = instance(request), await fields(request)
    name, root = text(body, "directory"), service(request).root
    force, resume = flag(body.get("force"), "force"), flag(body.get("resume"), "resume")
    filmed = body.get("video_callable", body.get("video-callable"))  # the latter as Clojure writes it
    await here.ask(lambda: here.holds.monitor_start(confined(root, name, where=HERE), force, resume, filmed))
    return nothing(request)


async def monitor_close(request: Request) -> Response:
    here = instance(request)
    await here.ask(here.holds.monitor_close)
    return nothing(request)


async def close(request: Request) -> Response:
    await service(request).instances.close(instance(request))
    return nothing(request)


async def upload(request: Request) -> Response:
    """Scores the folder on this machine. The key is asked for, as it was, and dropped: nothing is sent anywhere."""
    body, root = await fields(request), service(request).root
    name, algorithm = text(body, "training_dir"), body.get("algorithm_id") or None
    required(body, "api_key")
    await run_in_threadpool(lambda: score(confined(root, name, create=False, where=HERE), algorithm))
    return nothing(request)


async def shutdown(request: Request) -> Response:
    if not service(request).settings.allow_shutdown:
        raise HTTPException(403, "this server is not stopped from outside: start it with --allow-shutdown if it may be")
    service(request).stop()
    return Response("Server shutting down", 200, media_type="text/html")


ROUTES: dict[str, dict[str, Handler]] = {
    "/v1/envs": {"GET": list_all, "POST": create},
    "/v1/envs/{id}/reset": {"POST": reset},
    "/v1/envs/{id}/step": {"POST": step},
    "/v1/envs/{id}/action_space": {"GET": action_space},
    "/v1/envs/{id}/action_space/sample": {"GET": sample},
    "/v1/envs/{id}/action_space/contains": {"GET": contains},
    "/v1/envs/{id}/action_space/contains/{x:path}": {"GET": contains},
    "/v1/envs/{id}/observation_space": {"GET": observation_space},
    "/v1/envs/{id}/observation_space/contains": {"POST": observation_contains},
    "/v1/envs/{id}/monitor/start": {"POST": monitor_start},
    "/v1/envs/{id}/monitor/close": {"POST": monitor_close},
    "/v1/envs/{id}/close": {"POST": close},
    "/v1/upload": {"POST": upload},
    "/v1/shutdown": {"POST": shutdown},
}
