"""A Ray cluster, for the commands that take ``--ray ADDRESS``.

The package is sent to the nodes with the job. Every node needs requirements.txt and requirements-cluster.txt in the
versions of the machine that drives the work, which belongs to the cluster.
"""

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from iwae.system import optional
from iwae.system.files import error_text
from iwae.system.paths import PACKAGE

CONNECT_SECONDS = 10  # for the head to answer
RETRIES = 20  # lost workers after which a task counts as failed


class ClusterError(RuntimeError):
    """A cluster cannot be joined, or its workers are lost again and again; the message says why."""


@contextmanager
def joined(address: str) -> Iterator[Any]:
    """The package ``ray``, connected to the cluster at this address: ``auto`` is the one that this machine belongs to,
    ``local`` a new one on this machine alone. On exit what is left of the work is cancelled.

    Raises MissingError where Ray is not installed, ClusterError where there is no cluster.
    """
    optional.require(f"--ray {address}", "ray", extra="cluster")
    import ray  # pyright: ignore[reportMissingImports]

    if address.startswith("ray://"):
        raise ClusterError(
            f"--ray {address}: the command must run on a machine of the cluster, with its address or auto"
        )
    try:
        _check_answers(address)
        runtime = {"py_modules": [str(PACKAGE)]}
        ray.init(address, runtime_env=runtime, log_to_driver=False, logging_level="error")
    except (ConnectionError, RuntimeError, ValueError, OSError, ray.exceptions.RayError) as error:
        text = error_text(error) if isinstance(error, OSError) else error
        raise ClusterError(f"no Ray cluster at {address} could be joined: {text}") from None
    try:
        with redirect_stdout(sys.stderr):  # where Ray says that it has lost a node
            yield ray
    finally:
        ray.shutdown()  # and ends all tasks of this job


def here(ray: Any) -> Any:
    """The scheduling strategy of an actor that must be on this machine."""
    return ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
        ray.get_runtime_context().get_node_id(), soft=False
    )


def _check_answers(address: str) -> None:
    """Raises OSError where nothing listens at HOST:PORT, which Ray would look for for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), CONNECT_SECONDS).close()


@contextmanager
def own_errors(ray: Any) -> Iterator[None]:
    """Ray's errors of tasks become ClusterErrors of one line."""
    try:
        yield
    except ray.exceptions.RayError as error:
        raise ClusterError(reason(ray, error)) from None


def reason(ray: Any, error: Any) -> str:
    """Why a task has failed, in one line: what its code raised, or what became of its worker."""
    if isinstance(error, ray.exceptions.RayTaskError):
        return str(error.cause) or type(error.cause).__name__
    text = " ".join(str(error).split())
    if isinstance(error, ray.exceptions.OutOfMemoryError):
        return f"a node has too little memory for the work: {text}"
    if isinstance(error, ray.exceptions.WorkerCrashedError):
        return f"a task has lost {RETRIES + 1} workers one after the other, as with too little memory: {text}"
    return text
