"""MULTI, EXEC and DISCARD.

Floor 5. Never here: isolation. EXEC runs the queued commands one after the other, each waiting for its commit
(NODESCONF A): other clients' commands may come between them, and nothing is undone when one fails.
"""

from __future__ import annotations

import asyncio

from . import resp
from .command import Client, Command, CommandError, Kind, error_reply, look_away, waiting_error_reply, write_reply

__all__ = ["COMMANDS", "enqueue"]


def enqueue(client: Client, command: Command, arguments: list[bytes]) -> bytes:
    """Queues a command between MULTI and EXEC."""
    if command.no_transaction:
        client.transaction_broken = True
        return resp.error("ERR Command not allowed inside a transaction")
    client.transaction_bytes += sum(map(len, arguments)) + 64 * len(arguments)
    if client.transaction_bytes > client.port.limits.max_query_bytes or client.transaction is None:
        client.transaction_broken = True
        return resp.error("ERR the transaction is too large")
    client.transaction.append((command, arguments))
    return b"+QUEUED\r\n"


def _multi(client: Client, arguments: list[bytes]) -> bytes:
    if client.transaction is not None:
        raise CommandError("ERR MULTI calls can not be nested")
    client.transaction = []
    return resp.OK


def _discard(client: Client, arguments: list[bytes]) -> bytes:
    if client.transaction is None:
        raise CommandError("ERR DISCARD without MULTI")
    client.end_transaction()
    return resp.OK


async def _exec(client: Client, arguments: list[bytes]) -> bytes:
    queued, broken = client.transaction, client.transaction_broken
    client.end_transaction()
    if queued is None:
        raise CommandError("ERR EXEC without MULTI")
    if broken:
        raise CommandError("EXECABORT Transaction discarded because of previous errors.")
    replies: list[bytes] = []
    left = client.port.limits.max_reply_bytes
    position = 0
    while position < len(queued):
        end = _end_of_writes(queued, position, client.port.limits.max_pipeline)
        if end > position:
            some = await _run_writes(client, queued[position:end])
        else:
            end = position + 1
            some = [await _run_one(client, *queued[position])]
        for reply in some:
            kept = reply if len(reply) <= left else resp.error("ERR the transaction's reply is too large")
            replies.append(kept)
            left -= len(kept)
        position = end
    return resp.array(replies)


def _end_of_writes(queued: list[tuple[Command, list[bytes]]], start: int, most: int) -> int:
    end = start
    while end < len(queued) and end - start < most and queued[end][0].kind is Kind.WRITE:
        end += 1
    return end


async def _run_writes(client: Client, queued: list[tuple[Command, list[bytes]]]) -> list[bytes]:
    """Writes that follow each other: proposed together in their order, as one batch."""
    waiting: list[asyncio.Future[bytes | None] | bytes] = []
    for command, arguments in queued:
        try:
            proposal = command.run(client, arguments) if command.run is not None else b""
            waiting.append(client.node.submit(proposal))
        except Exception as fault:
            waiting.append(error_reply(fault))
    futures = [each for each in waiting if isinstance(each, asyncio.Future)]
    for future in futures:
        future.add_done_callback(look_away)  # we may be cancelled while we wait
    if futures:
        await asyncio.wait(futures)
    return [each if isinstance(each, bytes) else write_reply(each, client.resp3) for each in waiting]


async def _run_one(client: Client, command: Command, arguments: list[bytes]) -> bytes:
    try:
        if command.wait is not None:
            return await command.wait(client, arguments)
        if command.kind is Kind.READ:
            fault = await asyncio.shield(client.port.barrier())
            if fault is not None:
                return resp.error(fault)
        return command.run(client, arguments) if command.run is not None else b""
    except Exception as fault:
        return waiting_error_reply(fault)


COMMANDS = [
    Command(
        "multi",
        1,
        run=_multi,
        flags=("noscript", "loading", "stale", "fast", "allow_busy"),
        group="transactions",
        summary="Queues the commands that follow.",
        immediate=True,
    ),
    Command(
        "exec",
        1,
        Kind.WAITING,
        wait=_exec,
        flags=("noscript", "loading", "stale", "skip_slowlog"),
        group="transactions",
        summary="Runs the queued commands one after the other.",
        immediate=True,
    ),
    Command(
        "discard",
        1,
        run=_discard,
        flags=("noscript", "loading", "stale", "fast", "allow_busy"),
        group="transactions",
        summary="Forgets the queued commands.",
        immediate=True,
    ),
]
