"""QEMU's own QMP client behind the line protocol of foreign-client.ts."""

import asyncio
import json
import sys

from qemu.qmp import EventListener, ExecuteError, QMPClient, QMPError


def say(answer):
    print(json.dumps(answer), flush=True)


def explain(error):
    return {"failure": f"{type(error).__name__}: {error}"}


async def execute(client, name, arguments):
    try:
        return {"return": await client.execute(name, arguments)}
    except ExecuteError as error:
        return {"error": {"class": error.error_class, "desc": str(error)}}
    except QMPError as error:
        return explain(error)


async def next_event(listener, name):
    async for event in listener:
        if event["event"] == name:
            return {"event": dict(event)}
    return {"failure": "the events ended"}


async def serve(client, listener):
    loop = asyncio.get_running_loop()
    # The client's own tasks run on while nothing is asked.
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        request = json.loads(line)
        if "await" in request:
            say(await next_event(listener, request["await"]))
        else:
            say(await execute(client, request["execute"], request.get("arguments")))


async def main(path):
    client = QMPClient("roost")
    await client.connect(path)
    say({"version": client.greeting.QMP.version})
    listener = EventListener()
    with client.listen(listener):
        await serve(client, listener)
    try:
        # It raises here what the connection was lost by.
        await client.disconnect()
        say({"disconnected": True})
    except Exception as error:  # whatever it is, the test shall see it
        say(explain(error))


asyncio.run(main(sys.argv[1]))
