"""What an evaluation tells: numbers, a table, pictures."""

import io

import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont
from PIL import ImageOps

_BINS = 15
# So many classes fit a matrix with names; so many a matrix.
_MOST_CLASSES_WITH_NAMES, _MOST_CLASSES = 20, 1000


def describe(labels, probabilities, class_names):
  """Describes how right predictions are.

  Args:
    labels: int [n] array.
    probabilities: float [n, classes] array.
    class_names: by label.

  Returns:
    Dict, as JSON has it: `precision_at_1` and `precision_at_3`, the shares of
    images whose class is the most probable one, or among the three most
    probable; `expected_calibration_error` (Guo et al., 2017, 15 bins): how far
    the probability of the most probable class is from the share of right ones,
    among images of about the same; `classes`, by label, with their number of
    examples and the share of right ones (None without any); `confusion`, a
    matrix of counts, row for row the images of a class, by what they were
    taken for (None of more than a thousand classes).
  """
  count = len(class_names)
  order = (-probabilities).argsort(1, kind='stable')
  predicted = order[:, 0]
  confusion = None
  if count <= _MOST_CLASSES:
    confusion = np.bincount(labels * count + predicted, minlength=count**2
                            ).reshape(count, count).tolist()
  examples = np.bincount(labels, minlength=count)
  right = np.bincount(labels[predicted == labels], minlength=count)
  return {
      'examples': len(labels),
      'precision_at_1': float((predicted == labels).mean()),
      'precision_at_3': float((order[:, :3] == labels[:, None]).any(1).mean()),
      'expected_calibration_error': _calibration_error(
          probabilities.max(1), predicted == labels),
      'classes': [{
          'name': name, 'examples': int(examples[i]),
          'accuracy': float(right[i] / examples[i])
          if examples[i] else None} for i, name in enumerate(class_names)],
      'confusion': confusion}


def _calibration_error(confidences, right):
  # A bin takes in its upper end.
  bins = np.ceil(confidences * _BINS).astype(int).clip(1, _BINS) - 1
  gaps = np.bincount(bins, right - np.float64(confidences), _BINS)
  return float(abs(gaps).sum() / len(right))


def table(description):
  """Returns what `describe()` returned, as text for people."""
  names = [one['name'] for one in description['classes']]
  confusion = description['confusion'] and np.array(description['confusion'])
  width = max(map(len, [*names, 'all']))
  lines = [f'{"":{width}}  examples  accuracy  most often taken for']
  for i, one in enumerate(description['classes']):
    if not one['examples']:
      continue
    often = ''
    if confusion is not None:
      wrong = confusion[i] * (np.arange(len(names)) != i)
      often = ', '.join(
          f'{names[j]} {wrong[j] / one["examples"]:.1%}'
          for j in (-wrong).argsort(kind='stable')[:3] if wrong[j])
    lines.append(f'{one["name"]:{width}}  {one["examples"]:8,}  '
                 f'{one["accuracy"]:8.1%}  {often}')
  lines.append(
      f'{"all":{width}}  {description["examples"]:8,}  '
      f'{description["precision_at_1"]:8.1%}  among the first three: '
      f'{description["precision_at_3"]:.1%}; expected calibration error: '
      f'{description["expected_calibration_error"]:.1%}')
  if len(names) <= _MOST_CLASSES_WITH_NAMES:
    cell = max(5, len(str(confusion.max())) + 1)
    lines += ['', 'Images of a class (row) by what they were taken for:',
              ' ' * width + ''.join(f'{name[:cell - 1]:>{cell}}'
                                    for name in names)]
    lines += [f'{name:{width}}' + ''.join(f'{n:{cell}}' for n in row)
              for name, row in zip(names, confusion)]
  return '\n'.join(line.rstrip() for line in lines)


def confusion_picture(description):
  """Draws the confusion matrix: rows are classes, columns what their images
  were taken for, in percent of the row.

  Returns:
    A PIL.Image.
  """
  names = [one['name'] for one in description['classes']]
  shares = np.array(description['confusion'], float)
  shares /= shares.sum(1, keepdims=True).clip(1)
  # Right is green, wrong is red; the square root shows rare mistakes.
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


def most_confident_mistakes(labels, probabilities, count):
  """Returns the indices of the images whose class was missed with the highest
  probabilities, highest first; at most `count`."""
  confidences = np.where(probabilities.argmax(1) == labels, -1.0,
                         probabilities.max(1))
  worst = (-confidences).argsort(kind='stable')[:count]
  return worst[confidences[worst] >= 0]


def mistakes_picture(images, labels, probabilities, class_names):
  """Draws images with what they are, what they were taken for, and the
  probability of that.

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
