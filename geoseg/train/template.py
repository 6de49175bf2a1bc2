"""A training file to begin with."""

from __future__ import annotations

from pathlib import Path

from geoseg.errors import SpecError
from geoseg.io.files import publish_bytes

TEMPLATE = """\
# What geoseg train is to learn, from what, and how. Paths start at the folder of this file; ${NAME} is the value of an
# environment variable. A line that begins with # and no space is a setting at its default, or an example: take the #
# away to use it.
#
#   geoseg train THIS_FILE -o BUNDLE

name: town                          # letters, digits, . _ -
version: 1
#description: Buildings and roads of the town, from drone images.
#license: CC-BY-4.0                 # of the model; look at what the licenses of your images and labels allow
#training_data: ["images by the survey, 2024, CC-BY-4.0"]   # credits, for the card
#notes: ["Labels were drawn by two people."]                # what the run knows of itself is added

architecture: Unet                  # geoseg models lists them
encoder: tu-lcnet_050               # geoseg models --encoders; small ones learn well on a CPU
#options: {decoder_channels: [256, 128, 64, 32, 16]}        # arguments of the architecture
bands: [red, green, blue]
dtype: uint8                        # of the scenes: uint8, uint16, int16 or float32
gsd_m: {min: 0.2, max: 0.6}         # pixel sizes, in metres, that the model will be good for

# id is the value in maps; color is red, green, blue. Polygons are made of classes with the role building or road.
classes:
  - {id: 1, name: building, color: [219, 68, 55], role: building}
  - {id: 2, name: road, color: [97, 97, 97], role: road}
  - {id: 3, name: other, color: [225, 198, 153]}

datasets:
  # Labels as a raster on the scene's grid. What a value means: a class; a list of classes, of which it is one;
  # {not: [...]}, any class but these; "" teaches nothing. Values that are ids need no map_class, and 0 teaches
  # nothing unless it is told what it means.
  - scene: north.tif
    labels: north_labels.tif
    map_class: {0: other, 7: [road, other], 8: ""}
    ignore: [9]                     # values that teach nothing
    #bands: [4, 3, 2]               # which of the scene's bands are those above, counted from 1
    #weight: 2                      # how often it is drawn from, per labelled pixel
    # A part of the scene is kept for validation: polygons of a file, by their names in a field.
    validation_regions: {file: regions.gpkg, field: region, names: [market]}

  # Labels as polygons with their class in a field.
  - scene: south.tif
    labels: cover.gpkg
    class_field: kind
    map_class: {house: building, hut: [building, other], street: road}
    background: other               # what pixels in no polygon are; they teach nothing without it
    #group: river_bank              # scenes of one group show the same ground, whatever their georeferencing says
    #nominal: true                  # its georeferencing is not to be believed: only groups tell of shared ground

  # Polygons that are all one class. Where only buildings were drawn, all else is not called other.
  - scene: east.tif
    labels: footprints.geojson
    every_polygon: building
    background: {not: [building]}

  # split: train, validation (decides which weights are kept, and the temperature), or test (scored at the end only).
  - {scene: west.tif, labels: west_labels.tif, ignore: [0], split: test}

# Drawn scenes beside the real ones; share: of the patches.
#demo: {seeds: [1, 2], size: 1536, share: 0.1, map_class: {land: other, vegetation: other, water: other}}

# Weights to begin with: of a bundle, or, with encoder: FILE.safetensors, of an encoder. encoder_rate: its learning rate
# as a share of the others'; 0 freezes it.
#start: {bundle: landcover-rgb, encoder: null, encoder_rate: 0.3}

steps: 3000
#max_minutes: 600                   # whichever comes first
validate_every: 100                 # steps; each leaves a checkpoint
patience: 8                         # validations without a better mean IoU, then it ends

#crop_px: 320                       # side of a training patch
#patch_px: 512                      # side of the patches that scenes are mapped with
#batch: 8                           # patches at a time: lower where memory is short ...
#accumulate: 1                      # ... and raise this: so many batches make one step
#class_balance: 0.5                 # 0 draws classes as often as they occur, 1 all equally often
#learning_rate: 0.001
#warmup_steps: 100
#weight_decay: 0.01
#gradient_clip: 5.0
#ema_decay: 0.995                   # of the averaged weights, which are kept
#seed: 0
#precision: float32                 # bfloat16 is faster on a GPU
#workers: 0                         # processes that read patches
#threads: null                      # of the CPU; null: all

# A weighted sum of losses; 0 leaves one out.
#loss:
#  cross_entropy: 1.0
#  dice: 1.0
#  focal: 0.0
#  lovasz: 0.0
#  tversky: 0.0
#  reverse_cross_entropy: 0.0       # holds against wrong labels
#  label_smoothing: 0.05
#  focal_gamma: 2.0
#  tversky_alpha: 0.3               # share of false positives in the Tversky loss
#  class_weights: {building: 2.0}   # 1 where not given

# Chances of changes to a patch. zoom: its range; above 1 enlarges what is on the ground.
#augment:
#  zoom: [0.6, 1.6]
#  rotate: 0.0                      # by any angle; right angles always
#  color: 0.8
#  haze: 0.25
#  blur: 0.15
#  jpeg: 0.2
#  noise: 0.25
#  cutout: 0.1
"""
"""All keys of a training file, with what they mean; those at their defaults are commented out."""


def write_template(path: Path) -> None:
    """Write it; SpecError for a file that is there already, OutputError where the disk refuses."""
    if path.exists():
        raise SpecError("is there already, so no template is written over it", path)
    publish_bytes(path, TEMPLATE.encode())
