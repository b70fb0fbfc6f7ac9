"""Whether a tracking store answers: asked before MLflow is imported, with a short time-out."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit


def why_unreachable(uri: str, timeout: int) -> str | None:
    """One line that says why a store cannot be written to now; ``None`` if it answers.

    Parameters
    ----------
    uri
        A server (``http://``, ``https://``) or a file (``sqlite:///``); others are left to MLflow.
    timeout
        Seconds to wait for an answer, or for another writer of the file.
    """
    if find_spec("mlflow") is None:
        return "mlflow is not installed"
    scheme = uri.partition(":")[0]
    if scheme == "sqlite":
        return _of_file(file_of(uri), timeout)
    if scheme in {"http", "https"}:
        return _of_server(uri, timeout)
    return None


def file_of(uri: str) -> Path:
    """The file of a ``sqlite:///`` store."""
    return Path(unquote(uri.removeprefix("sqlite:///").partition("?")[0]))


def _of_file(path: Path, timeout: int) -> str | None:
    try:
        with closing(sqlite3.connect(path, timeout=timeout, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        return f"{path} cannot be written ({error})"
    return None


def _of_server(uri: str, timeout: int) -> str | None:
    """A server that refuses us (401, 404, a certificate) is there: MLflow is to say what is wrong."""
    import requests

    parts = urlsplit(uri)
    where = f"{parts.scheme}://{parts.hostname}" + (f":{parts.port}" if parts.port else "")
    try:
        answer = requests.get(f"{uri.rstrip('/')}/health", timeout=timeout)
    except requests.exceptions.SSLError:
        return None
    except requests.exceptions.Timeout:
        return f"{where} does not answer within {timeout} s"
    except requests.exceptions.ConnectionError:
        return f"{where} does not answer"
    except (requests.exceptions.RequestException, ValueError) as error:
        return f"{where} cannot be asked ({error})"
    return f"{where} answers with status {answer.status_code}" if answer.status_code >= 500 else None
