"""Datasets: what an owner or a registry ships, converted once, and read as batches.

Every dataset's module ends with a `Dataset` (engine/facts.py):

    pocket       cifar10  flights  head_scans  sotu  clusters
    full size    criteo1tb  fastmri  imagenet  cifar10  mnist

Beside each, its owner's format: cifar10_archives, criteo_days and criteo_rows, fastmri_volumes, imagenet_sources
and imagenet_parts. What they share:

    prepared  parts                   arrays stored once with checksums, whole or part by part
    batches  prefetch                 the order, padding; work ahead in threads
    download  checksum  npm  pypi     pinned files from the configured registries
    images_dali  crop_window  rand_augment  rand_augment_dali  mixup  crop_flip  encoded_image  example_numbers
                                      photographs: decoding, windows, augmentation, and its random numbers
    undersampling                     magnetic resonance: masks and zero-filled images
    farmhash                          the hash of click logs

To add a dataset, copy the shape of `sotu.py`.
"""
