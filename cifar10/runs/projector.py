"""Embeddings for TensorBoard's projector, with labels and thumbnails."""

import math
import os

from PIL import Image

from cifar10.runs import pictures
from cifar10.util import filesystem
from cifar10.util.console import Progress

_LARGEST_SPRITE = 8192  # Pixels a side, which browsers take.
_CONFIG = '''embeddings {{
  tensor_name: "last hidden layer"
  tensor_path: "projector/features.tsv"
  metadata_path: "projector/labels.tsv"
  sprite {{
    image_path: "projector/thumbnails.png"
    single_image_dim: {side}
    single_image_dim: {side}
  }}
}}
'''


def write(directory, features, files, start, labels, predicted, class_names):
  """Writes embeddings, in place of earlier ones.

  Args:
    directory: directory of the event files.
    features: float [n, d] array.
    files: the `RecordFiles` of the images.
    start: index of the first one's record.
    labels, predicted: int [n] arrays.
    class_names: by label.
  """
  count = len(features)
  folder = os.path.join(directory, 'projector')
  os.makedirs(folder, exist_ok=True)
  with open(os.path.join(folder, 'labels.tsv'), 'w', encoding='utf-8') as file:
    file.write('class\tpredicted\trecord\n')
    for i in range(count):
      file.write(f'{class_names[labels[i]]}\t{class_names[predicted[i]]}\t'
                 f'{start + i}\n')

  columns = math.ceil(math.sqrt(count))
  side = min(max(files.format.height, files.format.width), 64,
             _LARGEST_SPRITE // columns)
  sprite = Image.new('RGB', (columns * side, columns * side), 'white')
  progress = Progress(count, 'embeddings')
  with open(os.path.join(folder, 'features.tsv'), 'w') as file:
    for i in range(count):
      image, = files.read([start + i])
      sprite.paste(pictures.thumbnail(image, side),
                   (i % columns * side, i // columns * side))
      file.write('\t'.join(f'{value:.6g}' for value in features[i]) + '\n')
      progress.report(i + 1)
  sprite.save(os.path.join(folder, 'thumbnails.png'))

  filesystem.write_text(os.path.join(directory, 'projector_config.pbtxt'),
                        _CONFIG.format(side=side).strip())
