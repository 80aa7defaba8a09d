#!/usr/bin/env python3
"""One command from a fresh clone: python3 go.py lab, python3 go.py test.

Needs Python 3.11 to 3.14 and nothing else. The first run makes an environment in .venv, from
the hashes in requirements.lock.txt; every later run finds it complete and starts at once.

    lab     copy the labs to my-labs, open JupyterLab there and print its address
    test    run the whole test suite (more arguments go to pytest)
    run     run a program of the environment:  go.py run popcorn-edu list
    setup   only make the environment
    lock    write requirements.lock.txt anew from pyproject.toml (needs uv)

lab and test hand further arguments on: go.py lab --port=9000, go.py test -m "not slow".
Where uv is on the PATH it installs the packages; GO_WITH=pip insists on pip.

Words: the *stamp* is a file in .venv, written last, that says what the environment was made from.
No stamp means half-made, another stamp means out of date; both are made anew.
"""

import contextlib
import difflib
import hashlib
import importlib.util
import json
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import sys
import time

OLDEST_PYTHON, NEWEST_PYTHON = (3, 11), (3, 14)  # requires-python in pyproject.toml
ROOT = pathlib.Path(__file__).resolve().parent
WINDOWS = os.name == "nt"
LOCK_POLL_S = 0.2
ADDRESS_POLL_S = 0.05

# What JupyterLab starts with here unless the user chose otherwise: it asks no outside server
# about news or updates, and keeps the state of widgets in the saved notebook.
LAB_SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        "fetchNews": "false",
        "checkForUpdates": False,
    },
    "@jupyter-widgets/jupyterlab-manager:plugin": {"saveState": True},
}


class Stop(Exception):
    """Something the user can put right, said in one sentence."""


class Environment:
    """The .venv of one project folder: is it complete, and if not, make it."""

    def __init__(self, root):
        self.root = pathlib.Path(root)
        self.folder = self.root / ".venv"
        self.stamp = self.folder / "made-by-go.json"
        self.lock = self.root / "requirements.lock.txt"
        self.project = self.root / "pyproject.toml"

    @property
    def programs(self):
        return self.folder / ("Scripts" if WINDOWS else "bin")

    @property
    def python(self):
        return self.programs / ("python.exe" if WINDOWS else "python")

    # -- what the stamp says ------------------------------------------------------------------

    def wanted(self):
        """What a complete environment is made from, as the stamp records it."""
        return {
            "place": str(self.root),  # scripts and the editable install hold absolute paths
            "packages": digest(self.lock),
            "project": digest(self.project),
        }

    def found(self):
        """What this environment was made from; an empty dict where it is missing or half-made."""
        try:
            stamp = json.loads(self.stamp.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        interpreter = self.interpreter()
        if not (interpreter and isinstance(stamp, dict) and stamp.pop("python", 0) == interpreter):
            return {}
        return stamp

    def interpreter(self):
        """The interpreter that .venv leads to, or '' where it has gone (an upgrade, a removal)."""
        home = ""
        with contextlib.suppress(OSError):
            for line in (self.folder / "pyvenv.cfg").read_text(encoding="utf-8").splitlines():
                key, _, value = line.partition("=")
                if key.strip() == "home":
                    home = value.strip()
        if not (self.python.exists() and os.path.isdir(home)):
            return ""
        return os.path.realpath(str(self.python))

    def missing(self):
        """The steps that are still to do: [], ['project'] or ['packages', 'project']."""
        found, wanted = self.found(), self.wanted()
        if found == wanted:
            return []
        same = all(found.get(key) == wanted[key] for key in ("place", "packages"))
        return ["project"] if same else ["packages", "project"]

    # -- making it ----------------------------------------------------------------------------

    def ensure(self):
        """Leave with a complete environment. Two go.py at once: one makes it, the other waits."""
        if not self.missing():
            return
        with only_one(self.root / ".venv.lock"):
            steps = self.missing()  # the other one may have done it all
            if steps:
                self.make(steps)

    def make(self, steps):
        wanted = self.wanted()
        uv = shutil.which("uv") if os.environ.get("GO_WITH", "uv") == "uv" else None
        began = time.monotonic()
        with contextlib.suppress(FileNotFoundError):
            self.stamp.unlink()  # from here until the last line it is half-made, and says so
        if "packages" in steps:
            say(f"Making the environment in {self.folder} (once; about 800 MB, a minute or two).")
            self.clear()
            self.create(with_pip=uv is None)
            self.install(uv, "--require-hashes", "-r", str(self.lock))
            self.write_lab_settings()
        self.install(uv, "--no-build-isolation", "--no-deps", "-e", str(self.root))
        wanted["python"] = self.interpreter()
        write_whole(self.stamp, json.dumps(wanted, indent=1))
        say(f"The environment is ready ({time.monotonic() - began:.0f} s).")

    def clear(self):
        try:
            if self.folder.is_symlink():
                self.folder.unlink()
            elif self.folder.exists():
                shutil.rmtree(str(self.folder))
        except OSError as problem:
            raise Stop(
                f"{self.folder} is out of date and cannot be removed ({problem.strerror}): "
                "close what runs from it, JupyterLab above all, then try again."
            ) from None

    def create(self, with_pip):
        """An empty environment. Debian ships venv without ensurepip, which only pip needs."""
        if not has_module("venv") or (with_pip and not has_module("ensurepip")):
            raise Stop(
                "This Python cannot make environments. On Debian or Ubuntu:\n"
                "    sudo apt install python3-venv\n"
                "then run the same command again."
            )
        without = [] if with_pip else ["--without-pip"]
        self.call([sys.executable, "-m", "venv", *without, str(self.folder)], "made")

    def install(self, uv, *what):
        if uv:
            # Compiled now, not at the first start: JupyterLab's first start is then a quick one.
            command = [uv, "pip", "install", "--quiet", "--compile-bytecode"]
            command += ["--python", str(self.python), *what]
        else:
            command = [str(self.python), "-m", "pip", "install", "--quiet"]
            command += ["--disable-pip-version-check", *what]
        self.call(command, "filled")

    def call(self, command, done):
        environ = dict(os.environ, PIP_USER="0")  # a user's "always --user" has no place in a venv
        environ.pop("PYTHONHOME", None)
        code = subprocess.call(
            command,
            cwd=str(self.root),
            env=environ,
            stdin=subprocess.DEVNULL,
            close_fds=False,  # it holds the file lock too: should we be killed, it still works
        )
        if code:
            hint = " GO_WITH=pip tries without uv." if "uv" in pathlib.Path(command[0]).stem else ""
            raise Stop(
                f"The environment could not be {done}; the lines above say why. "
                f"Put that right and run the same command again: it starts afresh.{hint}"
            )

    def write_lab_settings(self):
        folder = self.folder / "share" / "jupyter" / "lab" / "settings"
        write_whole(folder / "overrides.json", json.dumps(LAB_SETTINGS, indent=1))
        course = self.folder / "etc" / "jupyter" / "nbgrader_config.py"
        write_whole(course, "# Empty: no warning to a student that no course is configured.\n")

    # -- using it -----------------------------------------------------------------------------

    def variables(self):
        """The environment's own programs first, and nothing of another Python in the way."""
        environ = dict(os.environ, VIRTUAL_ENV=str(self.folder))
        environ["PATH"] = str(self.programs) + os.pathsep + environ.get("PATH", "")
        environ.setdefault("BOKEH_RESOURCES", "inline")  # charts without a network
        for name in ("PYTHONHOME", "PYTHONPATH"):
            environ.pop(name, None)
        return environ

    def become(self, command):
        """Run a program of the environment in our place; its exit code is ours."""
        if not WINDOWS:
            sys.stdout.flush()
            os.execvpe(command[0], command, self.variables())
        with ignoring_interrupts():
            return subprocess.call(command, env=self.variables())


# -- the commands -------------------------------------------------------------------------------


def setup(environment, extra):
    if extra:
        raise Stop(f"setup takes no arguments, and got {' '.join(extra)}.")
    environment.ensure()
    return 0


def test(environment, extra):
    environment.ensure()
    os.chdir(str(environment.root))
    return environment.become([str(environment.python), "-m", "pytest", *extra])


def run(environment, extra):
    environment.ensure()
    if not extra:
        raise Stop("run wants the program to run, as in: go.py run popcorn-edu list")
    program = shutil.which(extra[0], path=environment.variables()["PATH"])
    if program is None:
        raise Stop(f"There is no program {extra[0]!r} in {environment.programs}.")
    return environment.become([program, *extra[1:]])


def lock(environment, extra):
    """Every package that pyproject.toml asks for, for every platform, by hash and without URLs."""
    if not shutil.which("uv"):
        raise Stop("lock needs uv on the PATH (the package uv brings it).")
    command = ["uv", "pip", "compile", "--quiet", "--universal", "--generate-hashes"]
    command += ["--python-version", "3.11", "pyproject.toml", "--group", "dev"]
    command += ["-o", environment.lock.name, *extra]
    environ = dict(os.environ, UV_CUSTOM_COMPILE_COMMAND="python3 go.py lock")
    return subprocess.call(command, cwd=str(environment.root), env=environ)


def lab(environment, extra):
    environment.ensure()
    released = environment.root / "labs" / "student"
    if not released.is_dir():
        raise Stop(f"The labs are not there: {released} is missing. Is this the whole project?")
    folder = copy_labs(released, environment.root / "my-labs")
    copy_labs(environment.root / "labs" / "pages", folder)
    began = time.time()
    # Its own process, not become(): somebody has to wait for the address and say it.
    server = subprocess.Popen(
        [str(environment.python), "-m", "jupyterlab", *lab_options(folder, extra)],
        cwd=str(folder),
        env=lab_variables(environment),
    )
    signal.signal(signal.SIGTERM, lambda number, frame: server.terminate())
    with ignoring_interrupts():  # Ctrl-C is JupyterLab's to answer: it asks before it stops
        address = wait_for_address(environment, server, began)
        if address:
            say(f"\n  JupyterLab is running. Open\n\n      {address}\n\n  Ctrl-C here stops it.\n")
        return server.wait()


def copy_labs(released, mine):
    """Give every lab that is not there yet to the student. Work that was begun is never touched,
    neither by us nor by an update of the project, which only changes the released labs."""
    mine.mkdir(exist_ok=True)
    for lab in sorted(path for path in released.iterdir() if path.is_dir()):
        if not (mine / lab.name).exists():
            beside = mine / f".{lab.name}.{os.getpid()}"
            shutil.copytree(str(lab), str(beside))
            beside.rename(mine / lab.name)
    return mine


def lab_options(folder, extra):
    """JupyterLab's options for the labs; whatever the user gives replaces ours."""
    given = {argument.split("=")[0] for argument in extra}
    options = []
    if not given & {"--ServerApp.root_dir", "--notebook-dir", "--ServerApp.notebook_dir"}:
        options.append(f"--ServerApp.root_dir={folder}")
    if not given & {"--log-level", "--debug", "--ServerApp.log_level"}:
        options += ["--ServerApp.log_level=WARN", "--LabApp.log_level=WARN"]
    if not given & {"--no-browser", "--ServerApp.open_browser"} and not has_display():
        options.append("--no-browser")
    if hasattr(os, "geteuid") and os.geteuid() == 0 and "--allow-root" not in given:
        options.append("--allow-root")
    return options + extra


def lab_variables(environment):
    """With a token of our own JupyterLab leaves it to us to say the address."""
    environ = environment.variables()
    environ.setdefault("JUPYTER_TOKEN", secrets.token_hex(16))
    return environ


def has_display():
    if sys.platform in ("win32", "darwin"):
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def wait_for_address(environment, server, began):
    """The address, as soon as JupyterLab has written it down; None when it stops before that."""
    notes = runtime_folder(environment)
    while server.poll() is None:
        for note in notes.glob("jpserver-*.json"):
            address = read_address(note, server.pid, began)
            if address:
                return address
        time.sleep(ADDRESS_POLL_S)
    return None


def read_address(note, pid, began):
    """The address in a server's note, if it is the note of the server that we started."""
    try:
        if note.stat().st_mtime < began - 2:  # left by an older server; file clocks are coarse
            return None
        server = json.loads(note.read_text(encoding="utf-8"))
    except (OSError, ValueError):  # gone again, or not yet written to its end
        return None
    # On Windows .venv's python.exe starts the real one, so the number is not the one we know.
    if not WINDOWS and server.get("pid") != pid:
        return None
    token = f"?token={server['token']}" if server.get("token") else ""
    return f"{server['url']}lab{token}"


def runtime_folder(environment):
    """Where running Jupyter servers leave their notes, by Jupyter's own rules."""
    code = "import jupyter_core.paths as paths; print(paths.jupyter_runtime_dir())"
    command = [str(environment.python), "-c", code]
    return pathlib.Path(
        subprocess.check_output(command, env=environment.variables(), text=True).strip()
    )


COMMANDS = {"lab": lab, "test": test, "run": run, "setup": setup, "lock": lock}


# -- small things -------------------------------------------------------------------------------


def say(sentence):
    print(sentence, flush=True)


def has_module(name):
    return importlib.util.find_spec(name) is not None


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def write_whole(path, text):
    """The whole file or nothing: written beside its place, then moved there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.{os.getpid()}")
    beside.write_text(text, encoding="utf-8")
    os.replace(str(beside), str(path))


@contextlib.contextmanager
def only_one(path):
    """Hold a file lock, which the system takes back when we and what we started have ended."""
    with open(str(path), "a+b") as file:
        os.set_inheritable(file.fileno(), True)
        waited = False
        while not take(file):
            if not waited:
                say("Another go.py is making the environment; waiting for it.")
            waited = True
            time.sleep(LOCK_POLL_S)
        yield


def take(file):
    try:
        if WINDOWS:
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


@contextlib.contextmanager
def ignoring_interrupts():
    before = signal.signal(signal.SIGINT, lambda number, frame: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def main(arguments):
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        say(__doc__.strip())
        return 0
    name, extra = arguments[0], arguments[1:]
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1) or ["lab"]
        raise Stop(
            f"There is no command {name!r}: did you mean {near[0]!r}? "
            f"The commands are {', '.join(COMMANDS)}."
        )
    if not OLDEST_PYTHON <= sys.version_info[:2] <= NEWEST_PYTHON:
        raise Stop(
            "popcorn_edu needs Python {}.{} to {}.{}; this is Python {}.{} ({}).".format(
                *OLDEST_PYTHON, *NEWEST_PYTHON, *sys.version_info[:2], sys.executable
            )
        )
    return COMMANDS[name](Environment(ROOT), extra)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except Stop as problem:
        sys.exit(f"go.py: {problem}")
    except KeyboardInterrupt:
        sys.exit("go.py: stopped. The same command takes it up again.")
    except OSError as problem:
        sys.exit(f"go.py: {problem}")
