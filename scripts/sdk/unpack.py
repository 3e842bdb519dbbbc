"""Copies chosen files out of a wheel (zip) or a .crate (tar.gz). Used by scripts/setup.

    unpack.py ARCHIVE DEST FROM=TO...

A FROM that ends in / is a folder: what lies under it goes under DEST/TO. Any other FROM is one
file, which becomes DEST/TO. Hidden names are left out. A FROM that matches nothing is an error.
"""
import os
import shutil
import sys
import tarfile
import zipfile


def members(archive):
    """(name, is executable, function that opens it) of each regular file."""
    if zipfile.is_zipfile(archive):
        wheel = zipfile.ZipFile(archive)
        for info in wheel.infolist():
            if not info.is_dir():
                yield info.filename, info.external_attr >> 16 & 0o111, lambda i=info: wheel.open(i)
    else:
        crate = tarfile.open(archive, "r:gz")
        for info in crate:
            if info.isfile():
                yield info.name, info.mode & 0o111, lambda i=info: crate.extractfile(i)


def target(name, wanted):
    """(FROM, where it goes) for a member, or None."""
    for source, to in wanted:
        if name == source:
            return source, to
        if source.endswith("/") and name.startswith(source):
            inner = name[len(source):].split("/")
            if not any(part.startswith(".") for part in inner):  # nor, by that, any ".."
                return source, os.path.join(to, *inner)
    return None


def main(archive, dest, *pairs):
    wanted = [tuple(pair.split("=", 1)) for pair in pairs]
    seen = set()
    for name, executable, open_member in members(archive):
        found = target(name, wanted)
        if not found:
            continue
        seen.add(found[0])
        path = os.path.join(dest, found[1])
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open_member() as source, open(path, "wb") as out:
            shutil.copyfileobj(source, out, 1 << 20)
        os.chmod(path, 0o755 if executable else 0o644)
    missing = [source for source, _ in wanted if source not in seen]
    if missing:
        sys.exit("%s holds no %s" % (os.path.basename(archive), ", ".join(missing)))


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except OSError as error:
        sys.exit("unpacking failed: %s" % error)
