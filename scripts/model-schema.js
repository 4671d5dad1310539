// Writes docs/model.schema.json, the JSON schema of model files; with --check, fails where the file is another.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { toJsonSchema } from '@valibot/to-json-schema';
import { modelSpecSchema } from '../dist/shared/model.js';

const path = fileURLToPath(new URL('../docs/model.schema.json', import.meta.url));
const { $schema, required, properties, ...rest } = toJsonSchema(modelSpecSchema, { typeMode: 'input' });
const schema = {
  $schema,
  title: 'Lockstep model',
  ...rest,
  properties: {
    $schema: { type: 'string', description: 'Where this schema is, for editors' },
    ...properties,
  },
  // A file without a name takes its own.
  required: required.filter(key => key !== 'name'),
};
const text = `${JSON.stringify(schema, null, 2)}\n`;

if (!process.argv.includes('--check')) {
  writeFileSync(path, text);
} else if (readFileSync(path, 'utf8') !== text) {
  console.error('docs/model.schema.json is not what src/shared/model.ts says: run `npm run model-schema`.');
  process.exit(1);
}
