// Writes docs/*.schema.json, the JSON schemas of model and config files; with --check, fails where one differs.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { toJsonSchema } from '@valibot/to-json-schema';
import { modelHelp } from '../dist/cli/format.js';
import { trainFlags } from '../dist/cli/train.js';
import { configSchema } from '../dist/shared/config.js';
import { modelSpecSchema } from '../dist/shared/model.js';

const docs = fileURLToPath(new URL('../docs/', import.meta.url));
const schemas = { 'model.schema.json': modelFiles(), 'config.schema.json': configFiles() };
for (const [name, schema] of Object.entries(schemas)) {
  const path = `${docs}${name}`;
  const text = `${JSON.stringify(schema, null, 2)}\n`;
  if (!process.argv.includes('--check')) {
    writeFileSync(path, text);
  } else if (readFileSync(path, 'utf8') !== text) {
    console.error(`docs/${name} is not what the source says: run \`npm run json-schemas\`.`);
    process.exitCode = 1;
  }
}

function modelFiles() {
  const { required, ...rest } = objectSchema('Lockstep model', modelSpecSchema);
  // A file without a name takes its own.
  return { ...rest, required: required.filter(key => key !== 'name') };
}

/** Types from the settings, descriptions and defaults from the flags. */
function configFiles() {
  const { properties, required: _, ...rest } = objectSchema('Lockstep config', configSchema);
  const flags = { ...trainFlags, model: { describe: modelHelp, defaultDescription: 'lenet5' } };
  const described = Object.entries(properties).map(([key, schema]) => {
    if (key === '$schema') return [key, schema];
    const { describe, defaultDescription } = flags[key];
    const byDefault = defaultDescription === undefined ? '' : `; by default ${defaultDescription}`;
    return [key, { ...schema, description: `${describe}${byDefault}` }];
  });
  return { ...rest, properties: Object.fromEntries(described) };
}

function objectSchema(title, schema) {
  // JSON has no numbers that are not finite; forms that a function checks are in the descriptions.
  const options = { typeMode: 'input', ignoreActions: ['finite', 'check'] };
  const { $schema, properties, ...rest } = toJsonSchema(schema, options);
  return {
    $schema,
    title,
    ...rest,
    properties: {
      $schema: { type: 'string', description: 'Where this schema is, for editors' },
      ...properties,
    },
  };
}
