"""A small LibriSpeech in its owner's layout, extracted or in archives."""

import io
import tarfile

import numpy as np
import soundfile

SENTENCE = "THE QUICK BROWN FOX JUMPS OVER A LAZY DOG AND SPHINX OF BLACK QUARTZ JUDGE MY VOW IT'S"
# Utterances of every split by chapter: how many there are, too long ones included.
CHAPTERS = {
    "train-clean-100": {"103-1240": 4, "19-198": 3},
    "train-clean-360": {"14-208": 3},
    "train-other-500": {"20-205": 4, "1006-135212": 2},
    "dev-clean": {"84-121123": 3},
    "dev-other": {"116-288045": 3},
    "test-clean": {"61-70968": 3},
}
# It has every letter, so that the vocabulary has too.
PANGRAM = "103-1240-0000"
TOO_LONG, TOO_WORDY = "14-208-0001", "20-205-0002"  # of samples, of characters


def flac(samples, rate=16_000, subtype="PCM_16"):
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="FLAC", subtype=subtype)
    return file.getvalue()


def made_utterances():
    """Split to chapter to [(name, transcript, samples)]; the samples of each begin with a number of its own."""
    rng = np.random.default_rng(0)
    corpus, number = {}, 0
    for split, chapters in CHAPTERS.items():
        corpus[split] = {}
        for chapter, count in chapters.items():
            corpus[split][chapter] = []
            for i in range(count):
                name = f"{chapter}-{i:04}"
                number += 1
                length = 320_001 if name == TOO_LONG else int(rng.integers(2_000, 6_000))
                samples = rng.integers(-20_000, 20_000, length).astype(np.int16)
                samples[0] = number
                words = rng.choice(SENTENCE.split(), 80 if name == TOO_WORDY else int(rng.integers(2, 9)))
                if name == PANGRAM:
                    words = SENTENCE.split()
                corpus[split][chapter].append((name, " ".join(words), samples))
    return corpus


def files_of(corpus, split):
    """Path below LibriSpeech/ to content; a chapter's transcripts after its recordings, as a folder lists them."""
    files = {}
    for chapter, utterances in corpus[split].items():
        speaker, number = chapter.split("-")
        folder = f"{split}/{speaker}/{number}"
        for name, _, samples in utterances:
            files[f"{folder}/{name}.flac"] = flac(samples)
        lines = "".join(f"{name} {transcript}\n" for name, transcript, _ in utterances)
        files[f"{folder}/{chapter}.trans.txt"] = lines.encode()
    return files


def write_folders(source, corpus):
    for split in corpus:
        for name, content in files_of(corpus, split).items():
            path = source / "LibriSpeech" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    return source


def write_archives(source, corpus):
    """As the owner's: files in no order of their names, with some that belong to no split."""
    source.mkdir(parents=True, exist_ok=True)
    for split in corpus:
        files = dict(reversed(files_of(corpus, split).items())) | {"SPEAKERS.TXT": b"; of all\n"}
        with tarfile.open(source / f"{split}.tar.gz", "w:gz") as archive:
            for name, content in files.items():
                member = tarfile.TarInfo(f"LibriSpeech/{name}")
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    return source
