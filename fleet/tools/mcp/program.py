"""A tool server that is a program: its standard input and output as a transport of the SDK.

The SDK's own transport bounds no message, logs unreadable input, and leaves the program running
when its client is killed. Here a keeper (`fleet.tools.mcp.keeper`) runs the program.
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
from mcp.types import JSONRPCMessage

from fleet.config.tools import ToolsConfig
from fleet.tools.mcp import keeper
from fleet.tools.mcp.environment import environment
from fleet.tools.mcp.errors import ToolServerError
from fleet.tools.mcp.readable import messages_of

logger = logging.getLogger(__name__)

#: The largest message, hence the largest result; a longer message stops the program.
MESSAGE_BYTES_MAX = 64 << 20
#: How long a program may take to exit after the end of its input, and again after SIGTERM.
STOP_TIMEOUT_S = 1.0
#: How long the keeper may take beyond that before it is killed too.
KEEPER_TIMEOUT_S = 10.0
#: A keeper's exit codes above this one are signals.
SIGNAL_EXIT = 128

#: The SDK's streams: messages of the server, messages to the server.
Streams = tuple[Any, Any]


class ServerProgram:
    """One run of a server's program."""

    def __init__(self, name: str, config: ToolsConfig) -> None:
        self._name, self._config = name, config
        #: Set when the program can no longer be reached.
        self.ended = asyncio.Event()
        #: The reason of an exit by itself; continues a sentence from "the server".
        self.failure = ""
        #: Always False and 0: a request to a program is never repeated.
        self.session_forgotten, self.refused_with = False, 0
        #: A further fault, appended to the reason.
        self.hint = ""
        self._stopping = self._skip_grace = False

    @contextlib.asynccontextmanager
    async def streams(self) -> AsyncIterator[Streams]:
        """Run the program within this context. Raises ToolServerError when it cannot be started."""
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

    def skip_grace(self) -> None:
        """Stop the program without waiting for its own exit, because it hangs."""
        self._skip_grace = True

    def _environment(self) -> dict[str, str]:
        """The program's environment. Raises ToolServerError where a variable of ours is missing."""
        try:
            return environment(self._config.env)
        except KeyError as error:
            raise ToolServerError(
                f"tools.{self._name}.env: there is no variable {error.args[0]} here; set it where "
                "the fleet is started."
            ) from error

    def _command(self, folder: Path, env: dict[str, str]) -> tuple[str, ...]:
        """The command line. Raises ToolServerError where the program does not exist."""
        program, *arguments = self._config.command
        if not folder.is_dir():
            raise ToolServerError(f"tools.{self._name}.cwd: there is no folder {folder}.")
        # Resolved as it will be started: from its folder, and along its own PATH.
        place = str(folder / program) if "/" in program else program
        found = shutil.which(place, path=env.get("PATH"))
        if found is None:
            raise ToolServerError(
                f"tools.{self._name}.command: there is no program {program!r} that can be run; "
                "install it, or correct its name."
            )
        return (str(Path(found).absolute()), *arguments)

    async def _start(self) -> None:
        env, folder = self._environment(), Path(self._config.cwd or ".")
        command = self._command(folder, env)
        reading, self._lifeline = os.pipe()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                keeper.__file__,
                str(reading),
                str(STOP_TIMEOUT_S),
                *command,
                cwd=folder,
                env=env,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                # The output may repeat a prompt, which must not reach a worker's log.
                stderr=None if self._config.log_stderr else asyncio.subprocess.DEVNULL,
                start_new_session=True,
                pass_fds=(reading,),
                limit=MESSAGE_BYTES_MAX,
            )
        except BaseException as error:
            os.close(self._lifeline)
            if isinstance(error, OSError):
                fault = f"tools.{self._name}.command: {error.strerror or error}."
                raise ToolServerError(fault) from error
            raise
        finally:
            os.close(reading)

    async def _read(self, incoming: ObjectSendStream[SessionMessage | Exception]) -> None:
        stdout = self._process.stdout
        assert stdout is not None  # noqa: S101 - requested above
        async with incoming:
            try:
                while True:
                    for message in self._messages(await stdout.readuntil(b"\n")):
                        await incoming.send(SessionMessage(message))
                        del message  # free a large message while waiting for the next one
            except asyncio.IncompleteReadError:
                self.failure = "" if self._stopping else await self._exit_reason()
            except asyncio.LimitOverrunError:
                self._skip_grace = True
                self.failure = f"sent a message of more than {MESSAGE_BYTES_MAX >> 20} MiB"
            except (anyio.BrokenResourceError, anyio.ClosedResourceError, ConnectionError):
                pass  # the session is closed
            finally:
                self.ended.set()
        # A full pipe would prevent the program's exit; this task is cancelled after it.
        with contextlib.suppress(OSError):
            while await stdout.read(1 << 16):
                pass

    def _messages(self, line: bytes) -> list[JSONRPCMessage]:
        messages = messages_of(line)
        if not messages and line.strip() and not self.hint:
            self.hint = ", and it prints text that is not a message of the protocol"
            logger.warning("tools.%s: the server prints text that is not a message", self._name)
        return messages

    async def _write(self, outgoing: ObjectReceiveStream[SessionMessage]) -> None:
        stdin = self._process.stdin
        assert stdin is not None  # noqa: S101 - requested above
        async with outgoing:
            try:
                async for message in outgoing:
                    text = message.message.model_dump_json(by_alias=True, exclude_unset=True)
                    stdin.write(text.encode() + b"\n")
                    await stdin.drain()
            except OSError:
                self.ended.set()

    async def _stop(self) -> None:
        """Close the program's input, then terminate and kill it with its descendants."""
        process, self._stopping = self._process, True
        assert process.stdin is not None  # noqa: S101 - requested above
        process.stdin.close()
        if not self._skip_grace:
            await self._exited(STOP_TIMEOUT_S)
        os.close(self._lifeline)
        if not await self._exited(STOP_TIMEOUT_S + KEEPER_TIMEOUT_S):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await self._exited(KEEPER_TIMEOUT_S)
        self.ended.set()
        # Its pipes are closed afterwards, unless a descendant survived.
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), STOP_TIMEOUT_S)

    async def _exit_reason(self) -> str:
        if not await self._exited(STOP_TIMEOUT_S):
            return "closed its output"
        code = self._process.returncode or 0
        return (
            f"ended with exit code {code}"
            if code <= SIGNAL_EXIT
            else f"ended with signal {code - SIGNAL_EXIT}"
        )

    async def _exited(self, seconds: float) -> bool:
        # `wait` would wait for the end of the output too.
        until = time.monotonic() + seconds
        while self._process.returncode is None:
            if time.monotonic() >= until:
                return False
            await asyncio.sleep(0.01)
        return True
