// The settings of `train` as a config file has them: by the names of the flags.

import * as v from 'valibot';
import { flagOf } from './format.js';
import { listenSettingsSchema } from './listen.js';
import { modelNameSchema, trainSettingsSchema } from './settings.js';

/** In a file a model is named, so that the file is as flat as the flags. */
const entries = { ...trainSettingsSchema.entries, model: modelNameSchema, ...listenSettingsSchema.entries };

/** By flag, the setting that it sets. */
export const settingOf: ReadonlyMap<string, string> = new Map(
  Object.keys(entries).map(name => [flagOf(name), name]),
);

/** `docs/config.schema.json` is made from it. */
export const configSchema = v.strictObject(
  Object.fromEntries(Object.entries(entries).map(([name, schema]) => [flagOf(name), v.optional(schema)])),
);

/** Flags of `train` that say how to call it, and set nothing. */
export const callFlags: readonly string[] = ['resume', 'config', 'json', 'quiet'];
