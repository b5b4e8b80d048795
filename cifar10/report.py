"""What an evaluation tells: numbers, a table, pictures."""

import io

import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont

_BINS = 15
_MOST_CLASSES_IN_FULL = 20


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
    taken for.
  """
  count = len(class_names)
  order = (-probabilities).argsort(1, kind='stable')
  predicted = order[:, 0]
  confusion = np.bincount(labels * count + predicted,
                          minlength=count**2).reshape(count, count)
  examples = confusion.sum(1)
  return {
      'examples': len(labels),
      'precision_at_1': float((predicted == labels).mean()),
      'precision_at_3': float((order[:, :3] == labels[:, None]).any(1).mean()),
      'expected_calibration_error': _calibration_error(
          probabilities.max(1), predicted == labels),
      'classes': [{
          'name': name, 'examples': int(examples[i]),
          'accuracy': float(confusion[i, i] / examples[i])
          if examples[i] else None} for i, name in enumerate(class_names)],
      'confusion': confusion.tolist()}


def _calibration_error(confidences, right):
  # A bin takes in its upper end.
  bins = np.ceil(confidences * _BINS).astype(int).clip(1, _BINS) - 1
  gaps = np.bincount(bins, right - np.float64(confidences), _BINS)
  return float(abs(gaps).sum() / len(right))


def table(description):
  """Returns what `describe()` returned, as text for people."""
  names = [one['name'] for one in description['classes']]
  confusion = np.array(description['confusion'])
  width = max(map(len, [*names, 'all']))
  lines = [f'{"":{width}}  examples  accuracy  most often taken for']
  for i, one in enumerate(description['classes']):
    if not one['examples']:
      continue
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
  if len(names) <= _MOST_CLASSES_IN_FULL:
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
  annotated = len(names) <= _MOST_CLASSES_IN_FULL
  cell = 44 if annotated else max(4, 800 // len(names))
  font = ImageFont.load_default(14)
  margin = max(int(font.getlength(name)) for name in names) + 12
  if not annotated:
    margin = 24
  side = cell * len(names)
  picture = Image.new('RGB', (margin + side + 1, margin + side + 1), 'white')
  draw = ImageDraw.Draw(picture)
  for (row, column), share in np.ndenumerate(shares):
    x, y = margin + column * cell, margin + row * cell
    # Right is green, wrong is red; the square root shows rare mistakes.
    depth = share**0.5
    color = (tuple(np.int32([255 - 225 * depth, 255 - 110 * depth,
                             255 - 190 * depth]).tolist()) if row == column
             else tuple(np.int32([255 - 20 * depth, 255 - 225 * depth,
                                  255 - 225 * depth]).tolist()))
    draw.rectangle([x, y, x + cell, y + cell], color,
                   '#cccccc' if annotated else None)
    if annotated and share >= 0.005:
      draw.text((x + cell / 2, y + cell / 2), f'{100 * share:.0f}',
                'white' if depth > 0.75 else 'black', font, 'mm')
  if annotated:
    upright = Image.new('RGB', (side, margin), 'white')
    for i, name in enumerate(names):
      draw.text((margin - 6, margin + (i + 0.5) * cell), name, 'black', font,
                'rm')
      label = Image.new('RGB', (margin, cell), 'white')
      ImageDraw.Draw(label).text((6, cell / 2), name, 'black', font, 'lm')
      upright.paste(label.rotate(90, expand=True), (i * cell, 0))
    picture.paste(upright, (margin + 1, 0))
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
  return Image.fromarray(np.ascontiguousarray(pixels)).resize(
      (side, side), Image.NEAREST if enlarged else Image.BOX)


def png(picture):
  """Returns a PIL.Image as PNG."""
  encoded = io.BytesIO()
  picture.save(encoded, 'PNG', optimize=True)
  return encoded.getvalue()
