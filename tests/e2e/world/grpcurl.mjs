// SPDX-License-Identifier: Apache-2.0
// As much of grpcurl as one call by reflection takes, for machines where it is not to be had (Debian 12 has no package): it knows no proto but
// that of reflection, and asks the server for the rest.
//   node grpcurl.mjs [-cacert FILE] [-cert FILE -key FILE] [-H 'name: value']… [-d JSON] ADDRESS [list | SERVICE/METHOD]
// Prints the answer as JSON, or what failed on standard error; the exit code is 64 and the code of the call, as grpcurl's.
import path from 'node:path';
import { parseArgs } from 'node:util';
import grpc from '@grpc/grpc-js';
import protoLoader from '@grpc/proto-loader';
import { ROOT, channelCredentials } from './platforms.mjs';

const LOADING = { longs: String, enums: String, oneofs: true };

// Answers of the server's reflection to `requests`, in order.
function reflect(address, credentials, requests) {
  const loaded = protoLoader.loadSync('grpc/reflection/v1/reflection.proto', { ...LOADING, includeDirs: [path.join(ROOT, 'protos')] });
  const { ServerReflection } = grpc.loadPackageDefinition(loaded).grpc.reflection.v1;
  const client = new ServerReflection(address, credentials);
  return new Promise((resolve, reject) => {
    const answers = [];
    const stream = client.ServerReflectionInfo();
    stream.on('data', (answer) => answers.push(answer));
    stream.on('error', reject);
    stream.on('end', () => resolve(answers));
    for (const request of requests) stream.write(request);
    stream.end();
  }).finally(() => client.close());
}

// FileDescriptorSet: its only field, 1, repeated.
function descriptorSet(files) {
  const parts = [];
  for (const file of files) {
    const length = [];
    for (let left = file.length; ; left >>>= 7) {
      length.push(left > 127 ? (left & 127) | 128 : left);
      if (left <= 127) break;
    }
    parts.push(Buffer.from([0x0a, ...length]), file);
  }
  return Buffer.concat(parts);
}

// The JSON of messages names fields in lowerCamelCase, and what was loaded from descriptors as the proto does. Good for messages without maps.
function renamed(value, rename) {
  if (Array.isArray(value)) return value.map((item) => renamed(item, rename));
  if (value === null || typeof value !== 'object' || Buffer.isBuffer(value)) return value;
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [rename(key), renamed(item, rename)]));
}
const toProto = (name) => name.replace(/[A-Z]/g, (letter) => `_${letter.toLowerCase()}`);
const toJson = (name) => name.replace(/_([a-z])/g, (match, letter) => letter.toUpperCase());

async function main() {
  // Options as grpcurl writes them, with one dash.
  const args = process.argv.slice(2).map((arg) => arg.replace(/^-(?=(?:cacert|cert|key)$)/, '--'));
  const { values, positionals } = parseArgs({
    args, allowPositionals: true,
    options: {
      cacert: { type: 'string' }, cert: { type: 'string' }, key: { type: 'string' },
      H: { type: 'string', short: 'H', multiple: true, default: [] }, d: { type: 'string', short: 'd', default: '{}' },
    },
  });
  const [address, target] = positionals;
  const credentials = await channelCredentials(values.cacert, values.cert && { certificate: values.cert, privateKey: values.key });
  if (target === 'list') {
    const [{ listServicesResponse }] = await reflect(address, credentials, [{ listServices: '' }]);
    for (const { name } of listServicesResponse.service) console.log(name);
    return;
  }
  const [service, method] = target.split('/');
  const [{ fileDescriptorResponse, errorResponse }] = await reflect(address, credentials, [{ fileContainingSymbol: service }]);
  if (!fileDescriptorResponse) throw new Error(`no ${service} here: ${errorResponse?.errorMessage}`);
  const loaded = protoLoader.loadFileDescriptorSetFromBuffer(descriptorSet(fileDescriptorResponse.fileDescriptorProto), LOADING);
  const metadata = new grpc.Metadata();
  for (const line of values.H) metadata.add(line.slice(0, line.indexOf(':')).trim(), line.slice(line.indexOf(':') + 1).trim());
  const client = new (grpc.makeClientConstructor(loaded[service], service))(address, credentials);
  try {
    const answer = await new Promise((resolve, reject) =>
      client[method](renamed(JSON.parse(values.d), toProto), metadata, (error, value) => (error ? reject(error) : resolve(value))));
    console.log(JSON.stringify(renamed(answer, toJson), null, 2));
  } catch (error) {
    console.error(`ERROR:\n  Code: ${grpc.status[error.code]}\n  Message: ${error.details}`);
    process.exitCode = 64 + error.code;
  } finally {
    client.close();
  }
}

await main();
