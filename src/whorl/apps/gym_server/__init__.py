"""Gymnasium over HTTP, as OpenAI's gym-http-api spoke it (the /v1 routes), so that its clients still work.

    serve      binding and uvicorn: `serve` blocks, `running` is a server in a thread; settings: what they take
    app        the /v1 routes: table, handlers, errors as JSON
    vectors    the /whorl/v1 routes beside them: N environments in one call, binary
    instances  the environments behind ids: a thread each, limits, idle time; one environment as the routes see it
    service    what the handlers share, and read from a request
    ids        which ids may be made, retired names, making one environment
    wire       bodies in, JSON values out: spaces, observations, actions, numbers
    monitor    gym-format statistics, scores of uploads; film: its videos

The guard of both servers (Host, Origin, token, body size) is `whorl.apps.guard`. Nothing here is imported before
`serve` or `running` is called: they need the extra `server`.
"""
