"""ImageNet's files as their owners ship them, with a few small images, for tests.

Six classes; as in the real files, their ids have another order than their names, one training image is a PNG named
.JPEG, one has four channels, and a class's images do not come sorted.
"""

import io
import tarfile

import numpy as np
from PIL import Image
from scipy.io import savemat

WNIDS = ["n00000013", "n00000200", "n00003000", "n00040000", "n00500000", "n06000000"]
ILSVRC_IDS = [3, 6, 1, 2, 5, 4]  # of WNIDS
PER_CLASS = [4, 3, 6, 5, 4, 2]
TRUTH = [1, 4, 2, 3, 6, 5, 5, 6, 4, 3, 2, 1]  # ids of validation images 1 to 12


def encoded(seed, file_format="JPEG", mode="RGB"):
    """Every image has a size and colours of its own."""
    rng = np.random.default_rng(seed)
    height, width = 40 + seed % 7, 50 + seed % 5
    coarse = Image.fromarray(rng.integers(0, 256, (4, 5, 3), dtype=np.uint8))
    file = io.BytesIO()
    coarse.resize((width, height), Image.Resampling.BICUBIC).convert(mode).save(file, file_format)
    return file.getvalue()


TRAIN = {
    wnid: {f"{wnid}_{10 - i}.JPEG": encoded(100 * c + i) for i in range(PER_CLASS[c])}
    for c, wnid in enumerate(WNIDS)
}
TRAIN[WNIDS[2]]["n00003000_5.JPEG"] = encoded(205, "PNG")  # as ImageNet has one
TRAIN[WNIDS[3]]["n00040000_6.JPEG"] = encoded(304, mode="CMYK")
VALIDATION = {f"ILSVRC2012_val_{i:08}.JPEG": encoded(1000 + i) for i in range(1, 13)}
V2 = {f"{c}/{'cab'[i]}0f.jpeg": encoded(2000 + 10 * c + i) for c in range(6) for i in range(3)}
V2_NAME = "imagenetv2-matched-frequency"


def tar_of(files, mode="w"):
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return content.getvalue()


def devkit(truth=TRUTH, counts=PER_CLASS):
    """The kit's archive; as in the real one, meta.mat goes on with groups of classes."""
    rows = [*zip(ILSVRC_IDS, WNIDS, counts, strict=True), (7, "n09999999", 0)]
    fields = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_train_images", object)]
    synsets = np.array([(float(i), wnid, "a, b", float(n)) for i, wnid, n in sorted(rows)], fields)
    meta = io.BytesIO()
    savemat(meta, {"synsets": synsets.reshape(-1, 1)})
    folder = "ILSVRC2012_devkit_t12"
    files = {
        f"{folder}/readme.txt": b"",
        f"{folder}/data/meta.mat": meta.getvalue(),
        f"{folder}/data/ILSVRC2012_validation_ground_truth.txt": "".join(f"{i}\n" for i in truth).encode(),
    }
    return tar_of(files, "w:gz")


def write_archives(folder, train=TRAIN, validation=VALIDATION, v2=V2, kit=None):
    folder.mkdir(parents=True)
    tars = {f"{wnid}.tar": tar_of(files) for wnid, files in reversed(train.items())}
    (folder / "ILSVRC2012_img_train.tar").write_bytes(tar_of(tars))
    (folder / "ILSVRC2012_img_val.tar").write_bytes(tar_of(dict(reversed(validation.items()))))
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(kit or devkit())
    (folder / f"{V2_NAME}.tar.gz").write_bytes(
        tar_of({f"{V2_NAME}-format-val/{name}": data for name, data in v2.items()}, "w:gz")
    )
    return folder


def class_of_validation(name):
    return WNIDS[ILSVRC_IDS.index(TRUTH[int(name[-13:-5]) - 1])]


def write_folders(folder, train=TRAIN, validation=VALIDATION, v2=V2):
    files = {f"train/{wnid}/{name}": data for wnid, inside in train.items() for name, data in inside.items()}
    files |= {f"val/{class_of_validation(name)}/{name}": data for name, data in validation.items()}
    files |= {f"{V2_NAME}-format-val/{name}": data for name, data in v2.items()}
    files |= {"train/n00000013/._n00000013_1.JPEG": b"of another system", "val/valprep.sh": b""}
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder
