"""A tool server that is a program: its standard input and output as a transport of the SDK.

The SDK's own transport bounds no message, puts what it cannot read into the log, and leaves the
program running when its client is killed. Here a keeper (`fleet.tools.mcp.keeper`) runs it.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anyio
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from mcp.shared.message import SessionMessage
from mcp.types import JSONRPCMessage, jsonrpc_message_adapter

from fleet.config.tools import ToolsConfig
from fleet.tools.mcp import keeper
from fleet.tools.mcp.environment import environment
from fleet.tools.mcp.errors import ToolServerError

logger = logging.getLogger(__name__)

#: One message, hence one result; a longer one ends the program, so that it cannot fill the memory.
MESSAGE_BYTES_MAX = 64 << 20
#: How long a program may take to end by itself when its input has ended, and then on SIGTERM.
STOP_S = 1.0
#: The keeper needs so long beyond that, and then it is killed as well.
KEEPER_S = 10.0
#: A keeper's exit codes from here on are signals.
SIGNAL_EXIT = 128

#: What is read from a server and what is written to it, as the SDK wants them.
Streams = tuple[Any, Any]


class ServerProgram:
    """One run of a server's program."""

    def __init__(self, name: str, section: ToolsConfig) -> None:
        self._name, self._section = name, section
        #: Set when the program can be spoken to no more.
        self.ended = asyncio.Event()
        #: Why it ended, where it did so by itself; goes on from "the server".
        self.trouble = ""
        #: A program that is run again remembers nothing, and was not asked twice.
        self.forgotten = False
        #: What else is wrong with it.
        self.remark = ""
        self._stopping = self._rude = False

    @contextlib.asynccontextmanager
    async def streams(self) -> AsyncIterator[Streams]:
        """Runs the program while this is entered. Raises ToolServerError where it cannot be run."""
        await self._start()
        incoming, reads = anyio.create_memory_object_stream[SessionMessage | Exception](0)
        writes, outgoing = anyio.create_memory_object_stream[SessionMessage](0)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._read, incoming)
            tasks.start_soon(self._write, outgoing)
            try:
                yield reads, writes
            finally:
                for stream in (reads, writes):
                    stream.close()
                with anyio.CancelScope(shield=True):
                    await self._stop()
                tasks.cancel_scope.cancel()

    def hurry(self) -> None:
        """It hangs: ending it is not to wait until it does so by itself."""
        self._rude = True

    def _command(self, folder: Path, env: dict[str, str]) -> tuple[str, ...]:
        """Program and arguments. Raises ToolServerError where there is no such program."""
        program, *arguments = self._section.command
        if not folder.is_dir():
            raise ToolServerError(f"tools.{self._name}.cwd: there is no folder {folder}.")
        # Looked for as it will be started: from its folder, and along the path that it is given.
        place = str(folder / program) if "/" in program else program
        found = shutil.which(place, path=env.get("PATH"))
        if found is None:
            raise ToolServerError(
                f"tools.{self._name}.command: there is no program {program!r} that can be run; "
                "install it, or correct its name."
            )
        return (str(Path(found).absolute()), *arguments)

    async def _start(self) -> None:
        env, folder = environment(self._section.env), Path(self._section.cwd or ".")
        command = self._command(folder, env)
        reading, self._lifeline = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                keeper.__file__,
                str(reading),
                str(STOP_S),
                *command,
                cwd=folder,
                env=env,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # It may repeat a prompt, and a worker's log holds none.
                stderr=None if self._section.log_stderr else asyncio.subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(reading,),
                limit=MESSAGE_BYTES_MAX,
            )
        except BaseException as error:
            os.close(self._lifeline)
            if isinstance(error, OSError):
                what = f"tools.{self._name}.command: {error.strerror or error}."
                raise ToolServerError(what) from error
            raise
        finally:
            os.close(reading)

    async def _read(self, incoming: ObjectSendStream[SessionMessage | Exception]) -> None:
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - it was asked for
        async with incoming:
            try:
                while True:
                    message = self._message(await stdout.readuntil(b"\n"))
                    if message is not None:
                        await incoming.send(SessionMessage(message))
                    del message  # the next one may be long in coming, and this one large
            except asyncio.IncompleteReadError:
                self.trouble = "" if self._stopping else await self._ending()
            except asyncio.LimitOverrunError:
                self._rude = True
                self.trouble = f"sent a message of more than {MESSAGE_BYTES_MAX >> 20} MiB"
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
                pass  # nobody listens any more
            finally:
                self.ended.set()
        # A full pipe would keep it from ending; cancelled at the latest when it has.
        with contextlib.suppress(OSError):
            while await stdout.read(1 << 16):
                pass

    def _message(self, line: bytes) -> JSONRPCMessage | None:
        try:
            return jsonrpc_message_adapter.validate_json(line, by_name=False)
        except ValueError:
            if line.strip() and not self.remark:
                self.remark = ", and it prints what is no message of the protocol"
                logger.warning("tools.%s: the server prints what is no message", self._name)
            return None

    async def _write(self, outgoing: ObjectReceiveStream[SessionMessage]) -> None:
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - it was asked for
        async with outgoing:
            try:
                async for message in outgoing:
                    text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    stdin.write(text.encode() + b"\n")
                    await stdin.drain()
            except OSError:
                self.ended.set()

    async def _stop(self) -> None:
        """Its input ends; then it is asked, then it is killed, and so is all that it started."""
        process, self._stopping = self._process, True
        assert process.stdin is not None  # noqa: S101 - it was asked for
        process.stdin.close()
        if not self._rude:
            await self._gone(STOP_S)
        os.close(self._lifeline)
        if not await self._gone(STOP_S + KEEPER_S):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await self._gone(KEEPER_S)
        self.ended.set()
        # Its pipes are closed when this returns, unless something of it could not be killed.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_S)

    async def _ending(self) -> str:
        if not await self._gone(STOP_S):
            return "closed its output"
        code = self._process.returncode or 0
        return (
            f"ended with exit code {code}"
            if code <= SIGNAL_EXIT
            else f"ended with signal {code - SIGNAL_EXIT}"
        )

    async def _gone(self, seconds: float) -> bool:
        # Not `wait`, which waits for the end of its output too.
        until = time.monotonic() + seconds
        while self._process.returncode is None:
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(0.01)
        return True
