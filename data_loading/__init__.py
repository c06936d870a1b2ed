"""Datasets: what an owner or a registry ships, converted once, and read as batches.

Every dataset's module ends with a `Dataset` (engine/facts.py):

    pocket       cifar10  flights  head_scans  manuals  molecules  sotu  spoken_lines  clusters
    full size    criteo1tb  fastmri  imagenet  librispeech  ogbg  wmt  finewebedu  cifar10  mnist

Beside each, its owner's format: cifar10_archives, criteo_days and criteo_rows, fastmri_volumes, imagenet_sources and
imagenet_parts, librispeech_sources, game_speech, ogbg_files, parallel_text, parquet_text. What they share:

    prepared  parts                   arrays stored once with checksums, whole or part by part
    batches  prefetch                 the order, padding; work ahead in threads
    download  checksum  npm  pypi  debian  deb
                                      pinned files from the configured registries
    images_dali  crop_window  rand_augment  rand_augment_dali  mixup  crop_flip  encoded_image  example_numbers
                                      photographs: decoding, windows, augmentation, and its random numbers
    undersampling                     magnetic resonance: masks and zero-filled images
    farmhash                          the hash of click logs
    utterances  flac_dali  spoken_lines_mel
                                      speech: storage and batches, decoding, settings of a front end
    graphs  graph_batches             graphs end to end in arrays, and batches of static size
    smiles  molecule_features  scaffolds
                                      molecules: from text to graphs, and what is alike
    subword_tokenizer  gpt2_tokens  token_pairs  packing
                                      text: vocabularies, stored tokens, rows of several sentences

To add a dataset, copy the shape of `sotu.py`.
"""
