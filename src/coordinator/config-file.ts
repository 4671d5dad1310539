// Config files: settings of `train` by the names of its flags, checked at the door.

import { dirname, isAbsolute, join } from 'node:path';
import * as v from 'valibot';
import { callFlags, configSchema, settingOf } from '../shared/config.js';
import { LockstepError } from '../shared/errors.js';
import { isModelFile } from '../shared/presets.js';
import type { ListenSettings } from '../shared/listen.js';
import type { TrainSettings } from '../shared/settings.js';
import { describeJson, nearest, readJsonObject, type JsonFileKind } from './json-file.js';

const fileKind: JsonFileKind = { code: 'LOCKSTEP_CONFIG_FILE', noun: 'config', content: 'settings' };

/**
 * The settings that a config file names, for `train`. Its keys are the names of the flags (`max-steps`) and `model`;
 * relative paths in it begin at the file's folder.
 * @throws LOCKSTEP_CONFIG_FILE naming the file, the key, what was expected and what was found.
 */
export function readConfig(path: string): Partial<TrainSettings> & ListenSettings {
  const parsed = v.safeParse(configSchema, readJsonObject(path, fileKind));
  if (!parsed.success) {
    throw new LockstepError(fileKind.code, `${path}: ${explain(parsed.issues[0])}.`);
  }
  // oxlint-disable-next-line typescript/no-unsafe-type-assertion -- the schema is that of the settings, keys renamed
  const settings = Object.fromEntries(
    Object.entries(parsed.output).map(([flag, value]) => [settingOf.get(flag), value]),
  ) as ReturnType<typeof readConfig>;
  const { model, data, out, keyFile, joinFile } = settings;
  const from = (file: string): string => (isAbsolute(file) ? file : join(dirname(path), file));
  return {
    ...settings,
    ...(typeof model === 'string' && isModelFile(model) && { model: from(model) }),
    ...(data !== undefined && { data: from(data) }),
    ...(out !== undefined && { out: from(out) }),
    ...(keyFile !== undefined && { keyFile: from(keyFile) }),
    ...(joinFile !== undefined && { joinFile: from(joinFile) }),
  };
}

function explain(issue: v.InferIssue<typeof configSchema>): string {
  const key = v.getDotPath(issue) ?? '';
  if (issue.type !== 'strict_object') {
    return `${key} is ${describeJson(issue.input)}, expected ${issue.message}`;
  }
  if (callFlags.includes(key)) return `${key} is a flag only: give it as --${key}`;
  return `${key} is unknown; the nearest setting is ${nearest(key, [...settingOf.keys()])}`;
}
