"""MODEL_CARD.md: what an exported model is, for those who only have the model
(Mitchell et al., "Model Cards for Model Reporting", 2019)."""


from cifar10.runs import checkpoints
from cifar10.runs import description
from cifar10.runs import report

_CARD = '''# {network}, trained on {dataset}

This model finds the class of an image. It always answers with one of its
{num_classes:,} classes, whatever the image shows.

| | |
| --- | --- |
| network | {network}, {parameters:,} parameters |
| training data | {data}: images of {size} |
| training | {training} |
| recipe | {recipe} |
| computes in | {dtype} |
| weights | {weights} |
| format | {format} |
| versions | {versions} |

## Precision

{precision}

## Signatures

Where a shape has `n`, any number of images can be given.

{signatures}
## Classes

{classes}
'''
_TENSORS = {
    'image_bytes': 'encoded images, JPEG, PNG, BMP or GIF, of any size up to '
                   '100 megapixels',
    'images': 'pixels, from 0 to 255',
    'classes': 'the index of the most probable class',
    'names': 'its name, in UTF-8',
    'probabilities': 'of all classes'}
_MOST_CLASSES = 200  # A card stays short.


def text(run, checkpoint, signatures, variables, options):
  """Returns the text of the card.

  Args:
    run: the `Run`.
    checkpoint: path of the checkpoint that was exported.
    signatures: dict from names to (inputs, outputs), both dicts of tensors.
    variables: list of the trainable variables.
    options: the `export.Options`.
  """
  f, step = run.record_format, checkpoints.step_of(checkpoint)
  dtype = options.dtype or run.dtype
  data, training = run.dataset, f'{step:,} steps'
  if run.num_examples:  # Unknown of the 2016 code.
    images = step * run.global_batch
    data += f', {run.num_examples:,} records'
    training += (f' of {run.global_batch:,} images, '
                 f'{images / run.num_examples:.1f} epochs, with seed '
                 f'{run.seed}')
  classes = f'{f.num_classes:,} names, as the output `names` has them.'
  if f.num_classes <= _MOST_CLASSES:
    classes = '\n'.join(f'    {i} {name}'
                        for i, name in enumerate(f.class_names))
  recipe = run.recipe.changed().replace('|', r'\|')  # It is in a table.
  return _CARD.format(
      network=run.network, dataset=run.dataset, num_classes=f.num_classes,
      parameters=sum(v.shape.num_elements() for v in variables),
      data=data, training=training, recipe=f'`{recipe}`',
      size=f'{f.height}x{f.width} pixels, '
      f'{"gray" if f.depth == 1 else "in color"}',
      dtype=dtype,
      weights=('moving averages of the training'
               if run.recipe.moving_average_decay else 'of the last step'),
      format=options.format, classes=classes,
      versions=', '.join(f'{name} {version}' for name, version in
                         description.versions().items()),
      precision=_precision(report.find(
          checkpoint, dtype, [options.checkpoint_dir, options.eval_dir])),
      signatures='\n'.join(_signature(name, *tensors)
                           for name, tensors in signatures.items()))


def _precision(reports):
  if not reports:
    return ('No evaluation of this checkpoint was found when the model was '
            'exported.')
  return '\n'.join(dict.fromkeys(  # Each once.
      f"- {one['precision_at_1']:.1%} of {one['examples']} images "
      f"({one['dataset']}, {one['eval_data']}) get the right class; "
      f"cross-entropy {one['cross_entropy']:.3f} nats, expected calibration "
      f"error {one['expected_calibration_error']:.1%}." for one in reports))


def _signature(name, inputs, outputs):
  lines = [f'`{name}`', '']
  for kind, tensors in ('input', inputs), ('output', outputs):
    for key, tensor in tensors.items():
      shape = ', '.join('n' if size is None else str(size)
                        for size in tensor.shape.as_list())
      lines.append(f'- {kind} `{key}`, {tensor.dtype.name} [{shape}]: '
                   f'{_TENSORS[key]}')
  return '\n'.join([*lines, ''])
