"""What a worker of a cluster does in the tests of the adapters, so that things fail while it works. `work` is a folder that all
processes share."""
import os
import pathlib
import signal


def fail_after(batches, work, worker=None):
    """Between a worker's batches: behind its second one the first that comes kills itself, or the process `worker`, so that its
    result is lost; behind the third, the server."""
    if batches == 2 and _once(work, "worker-killed"):
        os.kill(worker or os.getpid(), signal.SIGKILL)
    if batches == 3 and _once(work, "server-killed"):
        os.kill(int(pathlib.Path(work, "server.pid").read_text()), signal.SIGKILL)


def _once(work, mark):
    """Whether nobody, in any process, was here before."""
    try:
        os.close(os.open(f"{work}/{mark}", os.O_CREAT | os.O_EXCL))
        return True
    except FileExistsError:
        return False
