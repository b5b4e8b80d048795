"""Dataclass fields with bounds for their values.

Flags, recipes, run.json and Python callers are checked in the same way.
"""

import dataclasses
import difflib
import typing

from cifar10.util.errors import UserError

_NAMES = {int: 'an integer', float: 'a finite number', str: 'text',
          bool: 'true or false', tuple: 'a list'}


def field(default=dataclasses.MISSING, help='', **bounds):
  """Returns a dataclass field with a description and bounds for its values.

  Args:
    default: the default value.
    help: description of one or more sentences. `--help` prints it if the field
      is a flag.
    **bounds: `minimum` and `maximum` of numbers; `positive`: greater than 0;
      `below`: less than this value; `choices`: a collection of values;
      `nonempty`: description of the value, for the message if it is empty.
  """
  return dataclasses.field(default=default, metadata={'help': help, **bounds})


def kind(declared):
  """Returns the type of a field's values other than None."""
  return (*typing.get_args(declared.type), declared.type)[0]


def parse(declared, text):
  """Converts a text to the type of a field, without checking the bounds.

  Raises:
    ValueError: the text cannot be converted.
  """
  wanted = kind(declared)
  if wanted is bool:
    return {'true': True, 'false': False}.get(text.lower(), text)
  try:
    return wanted(text)
  except ValueError:
    raise ValueError(f'expected {_NAMES[wanted]}') from None


def check(instance, form):
  """Raises UserError unless each field of a dataclass instance is valid.

  Args:
    instance: the instance.
    form: format of a field and its value in the message, like '--{}={}'.
  """
  for declared in dataclasses.fields(instance):
    value = getattr(instance, declared.name)
    if wanted := expected(declared, value):
      raise UserError(f'{form.format(declared.name, value)}: expected {wanted}')


def is_utf8(text):
  """Returns whether a text can be encoded as UTF-8, as TensorFlow requires.
  File names may contain other bytes."""
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True


def expected(declared, value):
  """Describes the values that a field accepts; None if `value` is valid."""
  wanted, bounds = kind(declared), declared.metadata
  if value is None and type(None) in typing.get_args(declared.type):
    return None
  accepted = (int, float) if wanted is float else wanted
  if not isinstance(value, accepted) or (
      isinstance(value, bool) and wanted is not bool):
    return _NAMES.get(wanted, wanted.__name__)
  if wanted is str and not is_utf8(value):
    return 'text in UTF-8'
  if wanted in (int, float) and not -2**63 <= value < 2**63:
    return _NAMES[wanted]  # Includes NaN: its comparisons are false.
  if bounds.get('nonempty') and not value:
    return bounds['nonempty']
  if bounds.get('positive') and value <= 0:
    return 'more than 0'
  if 'minimum' in bounds and value < bounds['minimum']:
    return f'{bounds["minimum"]} or more'
  if 'maximum' in bounds and value > bounds['maximum']:
    return f'{bounds["maximum"]} or less'
  if 'below' in bounds and value >= bounds['below']:
    return f'less than {bounds["below"]}'
  if 'choices' in bounds and value not in bounds['choices']:
    choices = list(map(str, bounds['choices']))
    if wanted is not str:
      return ' or '.join(choices)
    near = difflib.get_close_matches(value, choices) or choices
    return f'one of the choices. Did you mean {" or ".join(near)}?'
  return None
