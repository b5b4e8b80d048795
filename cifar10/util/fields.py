"""What the fields of `Run` and `Recipe` may hold: noted with each field, and
checked here, wherever the values came from."""

import dataclasses
import typing

from cifar10.util.errors import UserError

_NAMES = {int: 'an integer', float: 'a finite number', str: 'text',
          bool: 'true or false', tuple: 'a list'}


def field(default=dataclasses.MISSING, **bounds):
  """Returns a dataclass field with bounds for its values.

  Args:
    default: as of dataclasses.field().
    **bounds: `minimum` and `maximum` of numbers; `positive`, for more than 0;
      `below`, for less than that; `choices`, a collection of values.
  """
  return dataclasses.field(default=default, metadata=bounds)


def kind(declared):
  """Returns the type that the values of a field have, unless they are None."""
  return (*typing.get_args(declared.type), declared.type)[0]


def check(instance, form):
  """Raises UserError unless each field of a dataclass holds what it may.

  Args:
    instance: of the dataclass.
    form: how to name a field and its value, such as '--{}={}'.
  """
  for declared in dataclasses.fields(instance):
    value = getattr(instance, declared.name)
    optional = type(None) in typing.get_args(declared.type)
    expected = None if optional and value is None else _expected(
        kind(declared), declared.metadata, value)
    if expected:
      raise UserError(f'{form.format(declared.name, value)}: expected '
                      f'{expected}')


def is_utf8(text):
  """Returns whether text has no bytes that are not UTF-8, as names of files can
  have: TensorFlow takes no others."""
  try:
    text.encode()
  except UnicodeEncodeError:
    return False
  return True


def _expected(wanted, bounds, value):
  """Returns what there should be instead of a value, None if it is right."""
  accepted = (int, float) if wanted is float else wanted
  if not isinstance(value, accepted) or (
      isinstance(value, bool) and wanted is not bool):
    return _NAMES.get(wanted, wanted.__name__)
  if wanted is str and not is_utf8(value):
    return 'text in UTF-8'
  if wanted in (int, float) and not -2**63 <= value < 2**63:
    return _NAMES[wanted]  # Or nan, which no comparison is true of.
  if bounds.get('positive') and value <= 0:
    return 'more than 0'
  if 'minimum' in bounds and value < bounds['minimum']:
    return f'{bounds["minimum"]} or more'
  if 'maximum' in bounds and value > bounds['maximum']:
    return f'{bounds["maximum"]} or less'
  if 'below' in bounds and value >= bounds['below']:
    return f'less than {bounds["below"]}'
  if 'choices' in bounds and value not in bounds['choices']:
    return ' or '.join(map(str, bounds['choices']))
  return None
