"""Variables that each host of a cluster has, and sums over the hosts.

The variables are on host 0. The other hosts have copies of those that their
part of a step reads or changes: the trainable variables, the optimizer's and
lookahead's. Copies are local variables: no saver saves them, and a session that
starts sets them to the values of the variables, which it may have restored.
Each host then makes the same updates of its own.
"""

import contextlib
import re

import tensorflow.compat.v1 as tf


@contextlib.contextmanager
def on(host):
  """Makes a network or an update, built in the `with`, use copies of variables.

  Args:
    host: its number; 0: the variables themselves are used.
  """
  if host == 0:
    yield
    return
  prefix = f'host_{host}/'
  hosts = tf.get_collection_ref('hosts')
  originals = {v.op.name: v for v in tf.global_variables()}

  def get(getter, name, *args, **kwargs):
    if not kwargs['trainable']:
      return getter(name, *args, **kwargs)
    return getter(prefix + name, *args, **{**kwargs, 'reuse': tf.AUTO_REUSE})

  def create(next_creator, **kwargs):
    # Adam's creates variables in a name scope, in no variable scope.
    scope = tf.get_default_graph().get_name_scope()
    name = f'{scope}/{kwargs["name"]}'.strip('/').removeprefix(prefix)
    # The value is not read where the copy is.
    with tf.init_scope(), tf.name_scope(f'{prefix}{name}/'), (
        tf.colocate_with(None, ignore_existing=True)):
      value = originals[name].read_value()
    return next_creator(**{
        **kwargs, 'initial_value': value, 'trainable': False,
        'collections': [tf.GraphKeys.LOCAL_VARIABLES]})

  hosts.append(host)
  with tf.name_scope(prefix), tf.variable_scope(
      tf.get_variable_scope(), custom_getter=get), tf.variable_creator_scope(
          create):
    yield
  hosts.pop()


def trainable_variables():
  """Returns the trainable variables; in `with on(host)`, the host's copies."""
  variables, hosts = tf.trainable_variables(), tf.get_collection('hosts')
  if not hosts:
    return variables
  copies = {name_of(v): v for v in _copies_on(hosts[-1])}
  return [copies[v.op.name] for v in variables]


def name_of(variable):
  """Returns the name of the variable that this one is, or is a copy of."""
  return re.sub(r'^host_\d+/', '', variable.op.name)


def _copies_on(host):
  return tf.get_collection(tf.GraphKeys.LOCAL_VARIABLES, f'host_{host}/')


def all_reduce(values, hosts, divisor, dtype='float32'):
  """Adds up tensors over hosts, each of which gets all sums, divided.

  Each host adds up an equal part of all values, and sends it to all others
  (reduce-scatter and all-gather). So a host sends and receives
  2 (n - 1) / n of the bytes of its values, whatever the number n of hosts. All
  hosts get the same bits.

  Args:
    values: for each host, a structure of float32 tensors of fixed shapes.
    hosts: for each host, the device that computes.
    divisor: number.
    dtype: type to send values and averages in. Sums are computed in float32.

  Returns:
    For each host, a structure of tensors.
  """
  count = len(hosts)
  if count == 1:
    with tf.device(hosts[0]):
      return [tf.nest.map_structure(lambda value: value / divisor, values[0])]
  shapes = [value.shape for value in tf.nest.flatten(values[0])]
  sizes = [shape.num_elements() for shape in shapes]
  # Rows of whole cache lines are taken out of a tensor without copying them.
  padding = -sum(sizes) % (count * 32)
  parts = []
  for host, structure in zip(hosts, values):
    with tf.device(host):
      vector = tf.concat([tf.reshape(value, [-1]) for value in tf.nest.flatten(
          structure)] + [tf.zeros([padding])], 0)
      parts.append(tf.unstack(tf.reshape(tf.cast(vector, dtype), [count, -1])))
  averages = []
  for host, terms in zip(hosts, zip(*parts)):
    with tf.device(host):
      # tf.add_n() starts with a tensor whose memory it can take over: which one
      # depends on when they arrive.
      total = tf.reduce_sum(tf.cast(tf.stack(terms), tf.float32), 0)
      averages.append(tf.cast(total / divisor, dtype))
  results = []
  for host, structure in zip(hosts, values):
    with tf.device(host):
      vector = tf.cast(tf.concat(averages, 0), tf.float32)
      *vectors, _ = tf.split(vector, [*sizes, padding])
      results.append(tf.nest.pack_sequence_as(structure, [
          tf.reshape(*pair) for pair in zip(vectors, shapes)]))
  return results


def differing():
  """Returns which hosts' copies differ from the variables, in any bit.

  Returns:
    Dict of bool scalars by device. It is empty if there are no copies.
  """
  originals = {v.op.name: v for v in tf.global_variables()}
  result, host = {}, 1
  while pairs := [(originals[name_of(v)], v) for v in _copies_on(host)]:
    result[pairs[0][1].device] = tf.reduce_any(tf.not_equal(
        *(_fingerprints(variables) for variables in zip(*pairs))))
    host += 1
  return result


def _fingerprints(variables):
  fingerprints = []
  for v in variables:
    with tf.device(v.device):
      fingerprints.append(tf.fingerprint(tf.reshape(v, [1, -1])))
  with tf.device(variables[0].device):
    return tf.concat(fingerprints, 0)
