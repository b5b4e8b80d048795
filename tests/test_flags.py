"""Each flag of each program reaches what it is for, and nothing else.

The programs run in this process, with flags as a user writes them, up to where
their libraries begin: these are replaced by functions that note what they were
called with. What the libraries make of it, other tests see.
"""

import contextlib
import dataclasses
import inspect
import json
import os
import re
import runpy
import types
from typing import NamedTuple

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest

from cifar10 import cli
from cifar10 import eval as eval_lib
from cifar10 import model
from cifar10 import multi_gpu_train
from cifar10.cluster import processes
from cifar10.data import datasets
from cifar10.data import image_files
from cifar10.data import importers
from cifar10.data import record_files
from cifar10.data import records
from cifar10.networks import softmax
from cifar10.runs import best
from cifar10.runs import checkpoints
from cifar10.runs import description
from cifar10.runs import events
from cifar10.runs import hparams
from cifar10.runs import report
from cifar10.runs import trained


class Case(NamedTuple):
  """Flags of a program, and what each changes.

  Attributes:
    program: its name.
    flags: that are given anyway, so that others matter.
    rows: dict, flag to what it changes in what was noted: a dict as `calls()`
      returns; None for what is there without the flag only.
    tf_config: the environment variable TF_CONFIG.
  """
  program: str
  flags: str
  rows: dict
  tf_config: str = ''


DATA = {
    '--data_dir=/d': {'run.data_dir': '/d'},
    '--dataset=own': {'run.dataset': 'own'},
    '--data_url=file:/a.zip': {'run.data_url': ('file:/a.zip',)}}
NETWORK = {
    '--network=softmax': {'run.network': 'softmax',
                          'run.recipe': softmax.RECIPE},
    '--recipe=epochs=7': {
        'run.recipe': dataclasses.replace(model.RECIPE, epochs=7.0)},
    '--batch_size=9': {
        'run.recipe': dataclasses.replace(model.RECIPE, batch_size=9)},
    '--dtype=bfloat16': {'run.dtype': 'bfloat16'}}
TRAINING = {
    **DATA, **NETWORK,
    '--train_dir=/t': {'run.train_dir': '/t'},
    '--fresh': {'train.fresh': True},
    '--init_from=/i': {'run.init_from': '/i'},
    '--max_steps=9': {'run.max_steps': 9},
    '--holdout=9': {'run.holdout': 9},
    '--seed=9': {'run.seed': 9},
    '--reduce_dtype=bfloat16': {'run.reduce_dtype': 'bfloat16'},
    '--input=queue': {'run.input': 'queue'},
    '--min_fraction_of_examples_in_queue=0.9': {
        'run.min_fraction_of_examples_in_queue': 0.9},
    '--checkpoint_steps=9': {'run.checkpoint_steps': 9},
    '--summary_steps=9': {'run.summary_steps': 9},
    '--log_frequency=9': {'run.log_frequency': 9},
    '--keep_checkpoints=9': {'run.keep_checkpoints': 9},
    '--log_device_placement': {'run.log_device_placement': True},
    '--eval_at_end': {'evaluate_newest.tta': False}}
# That it lists them and trains nothing is in test_networks.py.
ELSEWHERE = {'train': {'list_networks'}}
AT_END = {'--tta': {'evaluate_newest.tta': True}}
TOWERS = {'--num_gpus=3': {'find_devices.num_towers': 3,
                           'train.devices': [*'abc']}}
CLUSTER = {'chief': ['a:1'], 'worker': ['b:1']}
CHIEF, WORKER = (
    json.dumps({'cluster': CLUSTER, 'task': {'type': task, 'index': 0}})
    for task in ('chief', 'worker'))
# Probabilities of 0.9, 0.09, 0.009 and so on.
FIVE = ' '.join(f'{name} {percent:.1f}%' for name, percent in zip(
    records.CIFAR10_CLASSES, (90, 9, 0.9, 0.1, 0)))
# TMP stands for a directory that is there.
IMPORTS = {
    'directory': 'TMP/own', 'path': '/p', 'size': 32, 'test_fraction': 0.2,
    'strict': False}
CASES = [
    Case('train', '', TRAINING),
    Case('train', '--eval_at_end', AT_END),
    Case('multi_gpu_train', '', {**TRAINING, **TOWERS}),
    Case('multi_gpu_train', '--eval_at_end', AT_END),
    Case('multi_gpu_train', '', {
        '--num_gpus=3': {'run.num_towers': 6}, '--seed=9': {'run.seed': 9},
        '--fresh': {'train.fresh': True}}, CHIEF),
    Case('multi_gpu_train', '', {
        '--data_dir=/d': {'ensure.data_dir': '/d'},
        '--dataset=own': {'ensure.name': 'own'},
        '--data_url=file:/a.zip': {'ensure.urls': ('file:/a.zip',)}}, WORKER),
    Case('eval', '--eval_data=holdout', {
        '--checkpoint_dir=/c': {'newest.directory': '/c',
                                'run_of.checkpoint_dir': '/c',
                                'options.checkpoint_dir': '/c'},
        '--dtype=float16': {'options.dtype': 'float16'},
        '--device=/cpu:0': {'options.device': '/cpu:0'},
        '--eval_dir=/e': {'Writer.directory': '/e',
                          'options.eval_dir': '/e'},
        '--data_dir=/d': {'ensure.data_dir': '/d', 'options.data_dir': '/d'},
        '--eval_data=train_eval': {'options.eval_data': 'train_eval'},
        '--num_examples=9': {'options.num_examples': 9},
        # Each second there is a new checkpoint, and at 400 that of the last
        # step, which does not wait.
        '--eval_interval_secs=150': {
            'evaluated at': [0, 150, 300, 400],
            'options.eval_interval_secs': 150},
        '--run_once': {'evaluated at': [0], 'options.run_once': True},
        '--use_moving_averages=false': {'options.use_moving_averages': False},
        # Three times: at 0, 300 and 400.
        '--report': {'table.content': 'published', 'options.report': True,
                     'out': 'a table a table a table'},
        '--tta': {'options.tta': True},
        '--embeddings=9': {'options.embeddings': 9},
        '--keep_best=/b': {'keep.directory': '/b', 'keep.precision': 0.5,
                           'options.keep_best': '/b'}}),
    Case('predict', 'x.png', {
        '--checkpoint_dir=/c': {'run_of.checkpoint_dir': '/c',
                                'options.checkpoint_dir': '/c'},
        '--dtype=float16': {'options.dtype': 'float16'},
        '--device=/cpu:0': {'options.device': '/cpu:0'},
        '--top_k=5': {'out': f'x.png {FIVE}', 'options.top_k': 5},
        '--json --top_k=1': {
            'options.json': True, 'options.top_k': 1,
            'out': json.dumps({'file': 'x.png', 'classes': [
                {'class': 0, 'name': 'airplane', 'probability': 0.9}]})}}),
    Case('export', '', {
        '--checkpoint_dir=/c': {'options.checkpoint_dir': '/c'},
        '--export_dir=/x': {'options.export_dir': '/x'},
        '--eval_dir=/e': {'options.eval_dir': '/e'},
        '--format=tflite': {'options.format': 'tflite'},
        '--dtype=float16': {'options.dtype': 'float16'}}),
    Case('dataset', '', {
        '--data_dir=/d': {'ensure.data_dir': '/d'},
        '--dataset=synthetic': {'ensure.name': 'synthetic'},
        '--data_url=file:/a.zip': {'ensure.urls': ['file:/a.zip']}}),
    Case('dataset', '--data_dir=TMP', {
        f'--{flag}=/p': {'ensure.name': 'own', **{
            f'{importer}.{name}': value for name, value in IMPORTS.items()}}
        for flag, importer in (('import_csv', 'import_csv'),
                               ('import_dir', 'import_folders'))}),
    Case('dataset', '--data_dir=TMP --import_dir=/p', {
        '--image_size=9': {'import_folders.size': 9},
        '--test_fraction=0.9': {'import_folders.test_fraction': 0.9},
        '--strict': {'import_folders.strict': True}}),
    Case('dataset', '--data_dir=TMP', {'--import_svhn=/p': {
        'ensure.name': 'own', 'import_svhn.directory': 'TMP/own',
        'import_svhn.path': '/p', 'import_svhn.size': 32,
        'import_svhn.unused_args': (0.2, False)}}),
    Case('benchmark', '', {
        **DATA, **NETWORK,
        '--num_gpus=3': {'find_devices.num_towers': 3,
                         'benchmark.devices': [*'abc']},
        '--windows=9': {'benchmark.num_windows': 9},
        '--trace=/t.json': {'benchmark.trace': '/t.json'},
        '--json': {'out': '{"measured": 1}', 'table.result': None}}),
    Case('benchmark', '', {'--all': {
        'benchmark.devices': None, 'benchmark.num_windows': None,
        'table.result': None, 'compare.device': 'a',
        'compare.num_windows': 5, 'comparison_table.results': ['compared'],
        'out': 'a comparison'}})]


# What is called in place of what: program to (module, or None for the program
# itself; name; what the call returns, made of its arguments).
RUN = description.Run(data_dir='/run', max_steps=400,
                      record_format=records.CIFAR10)
DATASET = types.SimpleNamespace(
    name='cifar10', format=records.CIFAR10,
    train=record_files.RecordFiles((), ()),
    test=record_files.RecordFiles((), ()))
PROBABILITIES = np.array([9 / 10 ** (1 + i) for i in range(10)])


def nothing(_):
  return None


REPLACED = {
    'train': [(None, 'train', lambda call: call['options']),
              (eval_lib, 'evaluate_newest', nothing)],
    'multi_gpu_train': [
        (None, 'train', lambda call: call['options']),
        (None, 'find_devices', lambda call: [*'abc'][:call['num_towers']]),
        (processes, 'Chief', lambda _: contextlib.nullcontext()),
        (processes, 'serve', nothing),
        (datasets, 'ensure', nothing),
        (eval_lib, 'evaluate_newest', nothing)],
    'eval': [
        (report, 'publish', lambda _: 'published'),
        (hparams, 'write_results', nothing),
        (best, 'keep', nothing),
        (trained, 'run_of', lambda _: RUN),
        (datasets, 'ensure', nothing),
        (None, 'print_result', nothing),
        (report, 'table', lambda _: 'a table'),
        (events, 'Writer', lambda _: contextlib.nullcontext())],
    'predict': [
        (None, 'predict', lambda call: [
            (call['paths'][0], PROBABILITIES, None)]),
        (image_files, 'expand', lambda call: call['places']),
        (trained, 'run_of', lambda _: RUN)],
    'export': [(None, 'export', lambda _: ('a directory', 'a checkpoint'))],
    'dataset': [(datasets, 'ensure', lambda _: DATASET),
                (importers, 'import_csv', nothing),
                (importers, 'import_folders', nothing),
                (importers, 'import_svhn', nothing)],
    'benchmark': [
        (None, 'benchmark', lambda _: {'measured': 1}),
        (None, 'table', lambda _: 'a table'),
        (None, 'compare', lambda _: ['compared']),
        (None, 'comparison_table', lambda _: 'a comparison'),
        (multi_gpu_train, 'find_devices',
         lambda call: [*'abc'][:call['num_towers']])]}


class Clock:
  """The time that a program asks for, and sleeps through."""
  now = 0

  def monotonic(self):
    return self.now

  def sleep(self, seconds):
    self.now += seconds
    assert self.now < 1000, 'it waits for nothing'


@pytest.fixture
def calls(monkeypatch, capsys, tmp_path):
  """Runs a program up to where its library begins.

  Returns, for a program and its arguments: a dict of what was noted, as
  FUNCTION.PARAMETER, or run.FIELD of a `Run`, and what it printed, as `out`;
  and the names of the program's flags.
  """
  def run_program(program, arguments, tf_config=''):
    seen, names, clock = {}, set(), Clock()

    def note(function, result):
      signature = inspect.signature(function)

      def noting(*args, **kwargs):
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        for name, value in call.arguments.items():
          if dataclasses.is_dataclass(value):
            of_run = isinstance(value, description.Options)
            seen.update({f'{"run" if of_run else "options"}.{key}': v
                         for key, v in vars(value).items()})
          elif name != 'checkpoint':
            if isinstance(value, os.PathLike):
              value = str(value).replace(str(tmp_path), 'TMP')
            seen[f'{function.__name__}.{name}'] = value
        return result(call.arguments)

      return noting

    def newest(call):
      return f'model.ckpt-{clock.now}'

    def evaluate(call):
      seen.setdefault('evaluated at', []).append(clock.now)
      return types.SimpleNamespace(metrics={'Precision @ 1': 0.5})

    def run(main, with_arguments=False):
      names.update({*flags.FLAGS} - before)
      own = main.__globals__
      for module, name, result in REPLACED[program]:
        if module is None:
          own[name] = note(own[name], result)
      if program == 'eval':
        own['time'] = clock
        own['evaluate_once'] = note(own['evaluate_once'], evaluate)
      positional = flags.FLAGS([program, *arguments.replace(
          'TMP', str(tmp_path)).split()])[1:]
      main(*[positional] * with_arguments)

    with flagsaver.flagsaver(), monkeypatch.context() as patch:
      # Conversion to LiteRT imports a program that has a flag --all, too.
      if 'all' in flags.FLAGS:
        delattr(flags.FLAGS, 'all')
      before = {*flags.FLAGS}
      patch.setenv('TF_CONFIG', tf_config)
      patch.setattr(cli, 'run', run)
      shared = [entry for entry in REPLACED[program] if entry[0]]
      if program == 'eval':
        shared.append((checkpoints, 'newest', newest))
        patch.setattr(checkpoints, 'identity', lambda path: path)
      for module, name, result in shared:
        patch.setattr(module, name, note(getattr(module, name), result))
      runpy.run_module(f'cifar10.{program}', run_name='__main__')
    if program == 'benchmark':
      del seen['run.train_dir']  # Another each time.
    return {**seen, 'out': ' '.join(capsys.readouterr().out.split())}, names

  return run_program


# That it is imported already is what lets its library be replaced.
@pytest.mark.filterwarnings('ignore:.*found in sys.modules:RuntimeWarning')
@pytest.mark.parametrize('case', CASES, ids=[
    f'{i} {case.program}' for i, case in enumerate(CASES)])
def test_a_flag_changes_what_it_is_for(calls, case):
  before, _ = calls(case.program, case.flags, case.tf_config)
  for flag, expected in case.rows.items():
    after, _ = calls(case.program, f'{case.flags} {flag}', case.tf_config)
    assert {key: after.get(key) for key in {*before, *after}
            if before.get(key) != after.get(key)} == expected, flag


@pytest.mark.filterwarnings('ignore:.*found in sys.modules:RuntimeWarning')
@pytest.mark.parametrize('program', REPLACED)
def test_every_flag_has_its_row(calls, program):
  _, names = calls(program, 'x.png' if program == 'predict' else '')
  rows = {re.match(r'--(\w+)', flag).group(1) for case in CASES
          for flag in case.rows if case.program == program}
  assert names == rows | ELSEWHERE.get(program, set())
