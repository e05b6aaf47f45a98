"""Published data files: checked against their checksums, downloaded only when asked."""

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable
from pathlib import Path

STALLED_SECONDS = 60  # a connection silent for so long has failed


def check_md5(path: Path, expected: str) -> None:
    """Raise RuntimeError if the file at `path` is not the published one."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    if found != expected:
        raise RuntimeError(
            f"{path}: its MD5 is {found}, that of the published file is {expected}; "
            "the file is damaged or another one: replace it"
        )


def download(urls: Iterable[str], path: Path, md5: str) -> None:
    """Fetch a published file from the first of `urls` that has it.

    The file appears at `path` only when it is complete and its checksum is right, so that an interrupted download, or
    several processes downloading at once, never leave a broken one.

    Raises:
        RuntimeError: none of the urls gave the published file; says why for each.
    """
    from http.client import HTTPException  # here: what speaks HTTP takes a tenth of the time of `import paceline`
    from urllib.request import urlopen

    path.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in urls:
        try:
            with tempfile.TemporaryDirectory(prefix=".download-", dir=path.parent) as folder:
                part = Path(folder, path.name)
                with urlopen(url, timeout=STALLED_SECONDS) as response, open(part, "wb") as file:
                    shutil.copyfileobj(response, file)
                check_md5(part, md5)
                os.replace(part, path)
            return
        except (OSError, HTTPException, RuntimeError) as error:
            failures.append(f"  {url}: {error}")
    raise RuntimeError("\n".join([f"cannot download {path.name}:", *failures]))


def first_existing(candidates: Iterable[Path], advice: str) -> Path:
    """The first of `candidates` that is a file; FileNotFoundError names them all and gives the `advice`."""
    candidates = list(candidates)
    for path in candidates:
        if path.is_file():
            return path
    places = "".join(f"\n  {path}" for path in candidates)
    raise FileNotFoundError(f"{candidates[0].name} not found; it should be at one of{places}\n{advice}")
