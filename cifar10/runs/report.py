"""The report of an evaluation: numbers, a table, and what TensorBoard shows."""

import json
import os

import numpy as np

from cifar10 import model
from cifar10.runs import checkpoints
from cifar10.runs import events
from cifar10.runs import hparams
from cifar10.runs import pictures
from cifar10.runs import projector
from cifar10.util import filesystem
from cifar10.util.errors import UserError

_BINS = 15
# Up to these numbers of classes, there is a confusion matrix, as text and in
# report.json.
_MOST_CLASSES_AS_TEXT, _MOST_CLASSES = 20, 1000
# What the model card tells.
_TYPES = {'precision_at_1': float, 'cross_entropy': float,
          'expected_calibration_error': float, 'examples': int, 'dataset': str,
          'eval_data': str}
_MOST_BYTES = 1 << 26  # Of report.json: 65,536 classes, or their confusion.
_MISTAKES = 24  # Number of images in the picture of mistakes.


def measure(labels, probabilities, class_names):
  """Measures predictions.

  Args:
    labels: int [n] array.
    probabilities: float [n, classes] array.
    class_names: by label.

  Returns:
    Dict, for JSON:
      examples: number of images.
      precision_at_1, precision_at_3: fraction of images whose class is the most
        probable one, or among the three most probable.
      expected_calibration_error: mean difference between the probability of the
        most probable class and the fraction of images for which it is right,
        over 15 bins of that probability (Guo et al., 2017).
      classes: by label, name, number of examples, and accuracy (None without
        examples).
      confusion: counts by class (row) and predicted class (column); None of
        more than a thousand classes.
  """
  count = len(class_names)
  predicted = probabilities.argmax(1)
  # Sorting would take several times the memory. Of classes that are equally
  # probable, the first ones come first, as in argmax().
  own = np.take_along_axis(probabilities, labels[:, None], 1)
  is_before = (probabilities > own) | (
      (probabilities == own) & (np.arange(count) < labels[:, None]))
  confusion = None
  if count <= _MOST_CLASSES:
    confusion = np.bincount(labels * count + predicted, minlength=count**2
                            ).reshape(count, count).tolist()
  examples = np.bincount(labels, minlength=count)
  right = np.bincount(labels[predicted == labels], minlength=count)
  return {
      'examples': len(labels),
      'precision_at_1': float((predicted == labels).mean()),
      'precision_at_3': float((is_before.sum(1) < 3).mean()),
      'expected_calibration_error': _calibration_error(
          probabilities.max(1), predicted == labels),
      'classes': [{
          'name': name, 'examples': int(examples[i]),
          'accuracy': float(right[i] / examples[i])
          if examples[i] else None} for i, name in enumerate(class_names)],
      'confusion': confusion}


def _calibration_error(confidences, right):
  # The upper end belongs to a bin.
  bins = np.ceil(confidences * _BINS).astype(int).clip(1, _BINS) - 1
  gaps = np.bincount(bins, right - np.float64(confidences), _BINS)
  return float(abs(gaps).sum() / len(right))


def table(content):
  """Returns the dict of `measure()` as a table in text."""
  names = [one['name'] for one in content['classes']]
  confusion = content['confusion'] and np.array(content['confusion'])
  width = max(map(len, [*names, 'all']))
  lines = [f'{"":{width}}  examples  accuracy  most often taken for']
  for i, one in enumerate(content['classes']):
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
      f'{"all":{width}}  {content["examples"]:8,}  '
      f'{content["precision_at_1"]:8.1%}  among the first three: '
      f'{content["precision_at_3"]:.1%}; expected calibration error: '
      f'{content["expected_calibration_error"]:.1%}')
  if len(names) <= _MOST_CLASSES_AS_TEXT:
    cell = max(5, len(str(confusion.max())) + 1)
    lines += ['', 'Images of a class (row) by what they were taken for:',
              ' ' * width + ''.join(f'{name[:cell - 1]:>{cell}}'
                                    for name in names)]
    lines += [f'{name:{width}}' + ''.join(f'{n:{cell}}' for n in row)
              for name, row in zip(names, confusion)]
  return '\n'.join(line.rstrip() for line in lines)


def most_confident_mistakes(labels, probabilities, count):
  """Returns the indices of the wrongly classified images with the highest
  probabilities, highest first; at most `count`."""
  confidences = np.where(probabilities.argmax(1) == labels, -1.0,
                         probabilities.max(1))
  worst = (-confidences).argsort(kind='stable')[:count]
  return worst[confidences[worst] >= 0]


def save(result, run, options, directory):
  """Writes report.json.

  Args:
    result: the `eval.Result`.
    run: the `Run` that was evaluated.
    options: the `eval.Options`.
    directory: directory to write to.

  Returns:
    Its content: what was evaluated, and the dict of `measure()`.

  Raises:
    UserError: it cannot be written.
  """
  content = {
      'checkpoint': checkpoints.fingerprint(result.checkpoint),
      'step': result.step, 'dataset': run.dataset,
      'dtype': options.dtype or run.dtype,
      **{name: getattr(options, name)
         for name in ('eval_data', 'tta', 'use_moving_averages')},
      'cross_entropy': result.metrics['cross_entropy'],
      **measure(result.labels, result.probabilities,
                run.record_format.class_names)}
  filesystem.write_text(os.path.join(directory, 'report.json'),
                        json.dumps(content))
  return content


def find(checkpoint, dtype, directories):
  """Finds reports on a checkpoint, as an exported model computes: without
  test-time augmentation, with the moving averages if there are any.

  Args:
    checkpoint: path of the checkpoint.
    dtype: type that the model computes in.
    directories: where report.json can be. One that is missing, or something
      else than `save()` writes, is no report.

  Returns:
    List of the contents of report.json.
  """
  wanted = {'checkpoint': checkpoints.fingerprint(checkpoint), 'dtype': dtype,
            'tta': False, 'use_moving_averages': True}
  found = []
  for directory in directories:
    try:
      content = json.loads(filesystem.read_text(
          os.path.join(directory, 'report.json'), _MOST_BYTES))
      if content['checkpoint'] and content.items() >= wanted.items() and all(
          isinstance(content[name], kind) for name, kind in _TYPES.items()):
        found.append(content)
    except (AttributeError, KeyError, RecursionError, TypeError, UserError,
            ValueError):
      pass
  return found


def keep(result, run, options):
  """Writes the result of an evaluation at the end of a training into its
  train_dir: report.json, and an event for the HPARAMS page.

  Args:
    result: the `eval.Result`.
    run: the `Run` that was evaluated.
    options: the `eval.Options`.
  """
  with filesystem.explained(run.train_dir), \
      events.Writer(run.train_dir) as writer:
    writer.summary(hparams.results(result, options), result.step)
  if not options.tta:
    save(result, run, options, run.train_dir)


def publish(result, run, options, writer):
  """Writes the report of an evaluation to its eval_dir: report.json, an event
  with pictures, and the embeddings if there are any.

  Args:
    result: the `eval.Result`.
    run: the `Run` that was evaluated.
    options: the `eval.Options`.
    writer: the `events.Writer` of its eval_dir.

  Returns:
    The content of report.json.
  """
  names = run.record_format.class_names
  content = save(result, run, options, options.eval_dir)
  for tag, key in (
      (model.tag('Precision @ 3'), 'precision_at_3'),
      ('precision/calibration_error', 'expected_calibration_error')):
    result.summary.value.add(tag=tag, simple_value=content[key])
  drawn = {}
  if content['confusion']:
    drawn['confusion_matrix'] = pictures.confusion_picture(content)
  worst = most_confident_mistakes(result.labels, result.probabilities,
                                  _MISTAKES)
  if worst.size:
    drawn['mistakes'] = pictures.mistakes_picture(
        result.files.read(result.start + worst), result.labels[worst],
        result.probabilities[worst], names)
  for tag, picture in drawn.items():
    events.add_picture(result.summary, f'evaluation/{tag}',
                       pictures.png(picture), *picture.size)
  writer.summary(result.summary, result.step)
  if result.features is not None:
    count = len(result.features)
    projector.write(
        options.eval_dir, result.features, result.files, result.start,
        result.labels[:count], result.probabilities[:count].argmax(1), names)
  return content
