"""Pictures of an evaluation: confusion matrix, mistakes, thumbnails."""

import io

import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont
from PIL import ImageOps

# Up to this number of classes, the confusion matrix has names and numbers.
_MOST_CLASSES_WITH_NAMES = 20


def confusion_picture(content):
  """Draws the confusion matrix: a row for each class, a column for each
  predicted class, in percent of the row.

  Args:
    content: the dict that `report.measure()` returns.

  Returns:
    A PIL.Image.
  """
  names = [one['name'] for one in content['classes']]
  shares = np.array(content['confusion'], float)
  shares /= shares.sum(1, keepdims=True).clip(1)
  # Green is right, red is wrong; the square root makes rare mistakes visible.
  depth = np.sqrt(shares)[..., np.newaxis]
  colors = np.where(np.eye(len(names), dtype=bool)[..., np.newaxis],
                    255 - depth * [225, 110, 190], 255 - depth * [20, 225, 225])
  annotated = len(names) <= _MOST_CLASSES_WITH_NAMES
  cell = 44 if annotated else max(1, 1000 // len(names))
  side = cell * len(names)
  matrix = Image.fromarray(colors.astype(np.uint8)).resize((side, side),
                                                           Image.NEAREST)
  if not annotated:
    return matrix
  font = ImageFont.load_default(14)
  margin = max(int(font.getlength(name)) for name in names) + 12
  picture = Image.new('RGB', (margin + side + 1, margin + side + 1), 'white')
  picture.paste(matrix, (margin, margin))
  draw = ImageDraw.Draw(picture)
  for i, name in enumerate(names):
    start = margin + i * cell
    draw.text((margin - 6, start + cell / 2), name, 'black', font, 'rm')
    upright = Image.new('RGB', (margin, cell), 'white')
    ImageDraw.Draw(upright).text((6, cell / 2), name, 'black', font, 'lm')
    picture.paste(upright.rotate(90, expand=True), (start, 0))
  for (row, column), share in np.ndenumerate(shares):
    x, y = margin + column * cell, margin + row * cell
    draw.rectangle([x, y, x + cell, y + cell], None, '#cccccc')
    if share >= 0.005:
      draw.text((x + cell / 2, y + cell / 2), f'{100 * share:.0f}',
                'white' if share > 0.56 else 'black', font, 'mm')
  return picture


def mistakes_picture(images, labels, probabilities, class_names):
  """Draws images with their class, the predicted class and its probability.

  Args:
    images: uint8 [n, height, width, 1 or 3] array, n >= 1.
    labels: int [n] array.
    probabilities: float [n, classes] array.
    class_names: by label.

  Returns:
    A PIL.Image.
  """
  side, columns = 104, 4
  line, font = 17, ImageFont.load_default(13)
  rows = -(-len(images) // columns)
  picture = Image.new('RGB', (columns * (side + 8) + 8,
                              rows * (side + 2 * line + 12) + 8), 'white')
  draw = ImageDraw.Draw(picture)
  for i, (pixels, label, row) in enumerate(zip(images, labels, probabilities)):
    x = 8 + i % columns * (side + 8)
    y = 8 + i // columns * (side + 2 * line + 12)
    picture.paste(thumbnail(pixels, side), (x, y))
    name = class_names[row.argmax()]
    draw.text((x, y + side + 2), f'is {class_names[label]}'[:15], '#1e7341',
              font)
    draw.text((x, y + side + 2 + line), f'{name[:10]} {row.max():.0%}',
              '#b01e1e', font)
  return picture


def thumbnail(pixels, side):
  """Returns a PIL.Image of the given height and width, in pixels, of a uint8
  [height, width, 1 or 3] array."""
  if pixels.shape[2] == 1:
    pixels = pixels.repeat(3, 2)
  enlarged = side >= max(pixels.shape[:2])
  return ImageOps.pad(Image.fromarray(np.ascontiguousarray(pixels)),
                      (side, side), Image.NEAREST if enlarged else Image.BOX,
                      'white')


def png(picture):
  """Returns a PIL.Image as PNG."""
  encoded = io.BytesIO()
  picture.save(encoded, 'PNG', optimize=True)
  return encoded.getvalue()
