// SPDX-License-Identifier: Apache-2.0
// An MCP server that implements what the conformance suite's `server` scenarios call for, for 2026-07-28 (stateless) and for
// 2025-11-25 (with sessions). Run directly it prints its URL; imported it offers startBackend().
import { randomBytes } from 'node:crypto';
import { pathToFileURL } from 'node:url';
import { listen, webHandler, sleep } from '../e2e/world/http.mjs';
import { dualEraEndpoint } from '../e2e/world/mcp-endpoint.mjs';
import {
  McpServer, ResourceTemplate, acceptedContent, completable, createRequestStateCodec, fromJsonSchema, hostHeaderValidationResponse,
  inputRequired, inputResponse, localhostAllowedHostnames, localhostAllowedOrigins, originValidationResponse, z,
} from '../e2e/world/mcp-server-sdk.mjs';

const PNG = 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8DwHwAFBQIAX8jx0gAAAABJRU5ErkJggg==';
const WAV = 'UklGRiQAAABXQVZFZm10IBAAAAABAAEAQB8AAIA+AAACABAAZGF0YQAAAAA=';
const CAPABILITIES = 'io.modelcontextprotocol/clientCapabilities';

const text = (value) => ({ content: [{ type: 'text', text: value }] });
const image = { type: 'image', data: PNG, mimeType: 'image/png' };
const form = (properties, required = Object.keys(properties)) => ({ type: 'object', properties, required });
const user = (content) => ({ role: 'user', content });

const JSON_SCHEMA_2020_12 = {
  $schema: 'https://json-schema.org/draft/2020-12/schema',
  type: 'object',
  $defs: { address: { $anchor: 'addressDef', type: 'object', properties: { street: { type: 'string' }, city: { type: 'string' } } } },
  properties: {
    name: { type: 'string' }, address: { $ref: '#/$defs/address' },
    contactMethod: { type: 'string', enum: ['phone', 'email'] }, phone: { type: 'string' }, email: { type: 'string' },
  },
  allOf: [{ anyOf: [{ required: ['phone'] }, { required: ['email'] }] }],
  if: { properties: { contactMethod: { const: 'phone' } }, required: ['contactMethod'] },
  then: { required: ['phone'] },
  else: { required: ['email'] },
  additionalProperties: false,
};

// Keeps the events of a legacy stream so that a GET with Last-Event-ID resumes it.
class MemoryEventStore {
  events = [];

  async storeEvent(streamId, message) {
    const eventId = `${streamId}_${this.events.length}`;
    this.events.push({ eventId, streamId, message });
    return eventId;
  }

  async getStreamIdForEventId(eventId) {
    return this.events.find((event) => event.eventId === eventId)?.streamId;
  }

  async replayEventsAfter(lastEventId, { send }) {
    const start = this.events.findIndex((event) => event.eventId === lastEventId);
    if (start < 0) return '';
    const { streamId } = this.events[start];
    for (const event of this.events.slice(start + 1)) {
      if (event.streamId === streamId && Object.keys(event.message).length > 0) await send(event.eventId, event.message);
    }
    return streamId;
  }
}

function registerContentTools(server) {
  const tool = (name, description, handler) => server.registerTool(name, { description, inputSchema: z.object({}) }, handler);
  tool('test_simple_text', 'Returns text', () => text('This is a simple text response for testing.'));
  tool('test_image_content', 'Returns an image', () => ({ content: [image] }));
  tool('test_audio_content', 'Returns audio', () => ({ content: [{ type: 'audio', data: WAV, mimeType: 'audio/wav' }] }));
  tool('test_embedded_resource', 'Returns an embedded resource', () => ({
    content: [{
      type: 'resource',
      resource: { uri: 'test://embedded-resource', mimeType: 'text/plain', text: 'This is an embedded resource content.' },
    }],
  }));
  tool('test_multiple_content_types', 'Returns text, an image and a resource', () => ({
    content: [
      { type: 'text', text: 'Multiple content types test:' }, image,
      {
        type: 'resource',
        resource: {
          uri: 'test://mixed-content-resource', mimeType: 'application/json', text: JSON.stringify({ test: 'data', value: 123 }),
        },
      },
    ],
  }));
  tool('test_error_handling', 'Always fails', () => {
    throw new Error('This tool intentionally returns an error for testing');
  });
  server.registerTool('json_schema_2020_12_tool',
    { description: 'Tool with JSON Schema 2020-12 features', inputSchema: fromJsonSchema(JSON_SCHEMA_2020_12) },
    (args) => text(JSON.stringify(args)));
  server.registerTool('test_custom_header', {
    description: 'Its argument `region` is mirrored into the header Mcp-Param-Region',
    inputSchema: fromJsonSchema({
      type: 'object', properties: { region: { type: 'string', 'x-mcp-header': 'Region' } }, required: ['region'],
    }),
  }, (args) => text(`region: ${args.region}`));
}

function registerStreamingTools(server, era) {
  const tool = (name, description, handler) => server.registerTool(name, { description, inputSchema: z.object({}) }, handler);
  const log = async (ctx) => {
    for (const line of ['Tool execution started', 'Tool processing data', 'Tool execution completed']) {
      if (line !== 'Tool execution started') await sleep(50);
      await ctx.mcpReq.log('info', line);
    }
    return text('Logged three times.');
  };
  tool('test_tool_with_logging', 'Sends three log messages', (_args, ctx) => log(ctx));
  tool('test_logging_tool', 'Sends log messages if the request asked for them', (_args, ctx) => log(ctx));
  tool('test_tool_with_progress', 'Reports progress 0, 50 and 100', async (_args, ctx) => {
    const progressToken = ctx.mcpReq._meta?.progressToken;
    for (const progress of [0, 50, 100]) {
      if (progress > 0) await sleep(50);
      if (progressToken !== undefined) {
        await ctx.mcpReq.notify({ method: 'notifications/progress', params: { progressToken, progress, total: 100 } });
      }
    }
    return text('Progress complete.');
  });
  tool('test_reconnection', 'Closes the stream in the middle of the call', async (_args, ctx) => {
    ctx.http?.closeSSE?.();
    await sleep(100);
    return text('Reconnection test completed.');
  });
  if (era !== 'legacy') {
    tool('test_streaming_elicitation', 'Asks for input on a streaming answer', () => inputRequired({
      inputRequests: {
        answer: inputRequired.elicit({ message: 'Continue?', requestedSchema: form({ ok: { type: 'boolean' } }) }),
      },
    }));
  }
}

// ctx.mcpReq.send puts the request on the stream of the call it belongs to; the convenience methods would use the client's GET stream,
// which may not be open yet.
const elicit = (ctx, params) => ctx.mcpReq.send({ method: 'elicitation/create', params: { mode: 'form', ...params } });

// Server-to-client requests, which only the legacy era has.
function registerLegacyTools(server) {
  server.registerTool('test_sampling', { description: 'Asks the client to sample', inputSchema: z.object({ prompt: z.string() }) },
    async ({ prompt }, ctx) => {
      const result = await ctx.mcpReq.send({
        method: 'sampling/createMessage', params: { messages: [user({ type: 'text', text: prompt })], maxTokens: 100 },
      });
      return text(`LLM response: ${result.content.text}`);
    });
  server.registerTool('test_elicitation', { description: 'Asks the user', inputSchema: z.object({ message: z.string() }) },
    async ({ message }, ctx) => {
      const requestedSchema = form({
        username: { type: 'string', description: "User's response" },
        email: { type: 'string', description: "User's email address" },
      });
      const result = await elicit(ctx, { message, requestedSchema });
      return text(`User response: action=${result.action}, content=${JSON.stringify(result.content)}`);
    });
  const elicits = (name, properties) => server.registerTool(name, { description: 'Asks the user', inputSchema: z.object({}) },
    async (_args, ctx) => {
      const result = await elicit(ctx, { message: 'Please fill in', requestedSchema: form(properties, []) });
      return text(`Elicitation completed: action=${result.action}, content=${JSON.stringify(result.content)}`);
    });
  elicits('test_elicitation_sep1034_defaults', {
    name: { type: 'string', default: 'John Doe' }, age: { type: 'integer', default: 30 }, score: { type: 'number', default: 95.5 },
    status: { type: 'string', enum: ['active', 'inactive', 'pending'], default: 'active' }, verified: { type: 'boolean', default: true },
  });
  const titled = (word) => ['First', 'Second', 'Third'].map((nth, i) => ({ const: `value${i + 1}`, title: `${nth} ${word}` }));
  elicits('test_elicitation_sep1330_enums', {
    untitledSingle: { type: 'string', enum: ['option1', 'option2', 'option3'] },
    titledSingle: { type: 'string', oneOf: titled('Option') },
    legacyEnum: { type: 'string', enum: ['opt1', 'opt2', 'opt3'], enumNames: ['Option One', 'Option Two', 'Option Three'] },
    untitledMulti: { type: 'array', items: { type: 'string', enum: ['option1', 'option2', 'option3'] } },
    titledMulti: { type: 'array', items: { anyOf: titled('Choice') } },
  });
}

// Multi-round-trip requests (2026-07-28): the tool answers `input_required` until it has what it needs.
function registerMultiRoundTools(server, codec) {
  const tool = (name, handler) => server.registerTool(name, { description: 'Needs input', inputSchema: z.object({}) },
    (_args, ctx) => handler(ctx, ctx.mcpReq.inputResponses));
  const askName = (message) => inputRequired.elicit({ message, requestedSchema: form({ name: { type: 'string' } }) });
  const ask = (content, maxTokens) =>
    inputRequired.createMessage({ messages: [user({ type: 'text', text: content })], maxTokens });

  tool('test_input_required_result_elicitation', (_ctx, responses) => {
    const content = acceptedContent(responses, 'user_name', z.object({ name: z.string() }));
    return content ? text(`Hello, ${content.name}!`) : inputRequired({ inputRequests: { user_name: askName('What is your name?') } });
  });
  tool('test_input_required_result_sampling', (_ctx, responses) => {
    const view = inputResponse(responses, 'capital_question');
    if (view.kind === 'sampling') return text(view.result.content.text ?? '');
    return inputRequired({ inputRequests: { capital_question: ask('What is the capital of France?', 100) } });
  });
  tool('test_input_required_result_list_roots', (_ctx, responses) => {
    const view = inputResponse(responses, 'client_roots');
    if (view.kind === 'roots') return text(`Roots: ${view.roots.map((root) => root.uri).join(', ')}`);
    return inputRequired({ inputRequests: { client_roots: inputRequired.listRoots() } });
  });
  tool('test_input_required_result_request_state', async (ctx, responses) => {
    if (ctx.mcpReq.requestState()?.step === 'confirm' && acceptedContent(responses, 'confirm')) return text('state-ok');
    return inputRequired({
      inputRequests: {
        confirm: inputRequired.elicit({ message: 'Please confirm', requestedSchema: form({ ok: { type: 'boolean' } }) }),
      },
      requestState: await codec.mint({ step: 'confirm' }),
    });
  });
  tool('test_input_required_result_tampered_state', async (ctx, responses) => {
    if (ctx.mcpReq.requestState()?.step === 'sealed' && acceptedContent(responses, 'confirm')) return text('state-ok');
    return inputRequired({
      inputRequests: {
        confirm: inputRequired.elicit({ message: 'Please confirm', requestedSchema: form({ ok: { type: 'boolean' } }) }),
      },
      requestState: await codec.mint({ step: 'sealed' }),
    });
  });
  tool('test_input_required_result_multiple_inputs', async (ctx, responses) => {
    const name = acceptedContent(responses, 'user_name');
    const greeting = inputResponse(responses, 'greeting');
    const roots = inputResponse(responses, 'client_roots');
    if (ctx.mcpReq.requestState() && name && greeting.kind === 'sampling' && roots.kind === 'roots') {
      return text(`${greeting.result.content.text} ${name.name}, ${roots.roots.length} roots`);
    }
    return inputRequired({
      inputRequests: {
        user_name: askName('What is your name?'), greeting: ask('Generate a greeting', 50), client_roots: inputRequired.listRoots(),
      },
      requestState: await codec.mint({ step: 'all' }),
    });
  });
  tool('test_input_required_result_multi_round', async (ctx, responses) => {
    const state = ctx.mcpReq.requestState();
    const color = acceptedContent(responses, 'step2');
    if (state?.step === 2 && color) return text(`${state.name} likes ${color.color}.`);
    const name = acceptedContent(responses, 'step1');
    if (state?.step === 1 && name) {
      return inputRequired({
        inputRequests: {
          step2: inputRequired.elicit({
            message: 'Step 2: What is your favorite color?', requestedSchema: form({ color: { type: 'string' } }),
          }),
        },
        requestState: await codec.mint({ step: 2, name: name.name }),
      });
    }
    return inputRequired({
      inputRequests: { step1: askName('Step 1: What is your name?') }, requestState: await codec.mint({ step: 1 }),
    });
  });
  tool('test_input_required_result_capabilities', (ctx) => {
    const declared = ctx.mcpReq.envelope?.[CAPABILITIES] ?? {};
    const inputRequests = {};
    if (declared.sampling) inputRequests.question = ask('What is the capital of France?', 100);
    if (declared.elicitation) inputRequests.user_name = askName('What is your name?');
    return Object.keys(inputRequests).length > 0 ? inputRequired({ inputRequests }) : text('No capability to ask with.');
  });
  // The SDK refuses to send a request the client cannot answer: -32021, HTTP 400.
  tool('test_missing_capability', (_ctx, responses) => {
    const view = inputResponse(responses, 'question');
    if (view.kind === 'sampling') return text('The capability is there.');
    return inputRequired({ inputRequests: { question: ask('Anything?', 10) } });
  });
}

function registerResources(server, subscriptions) {
  const fixed = (name, uri, mimeType, contents) => server.registerResource(name, uri, { description: name, mimeType },
    () => ({ contents: [{ uri, mimeType, ...contents }] }));
  fixed('Static text', 'test://static-text', 'text/plain', { text: 'This is the content of the static text resource.' });
  fixed('Static binary', 'test://static-binary', 'image/png', { blob: PNG });
  fixed('Watched', 'test://watched-resource', 'text/plain', { text: 'Watched resource content' });
  server.registerResource('Template', new ResourceTemplate('test://template/{id}/data', { list: undefined }),
    { description: 'A templated resource', mimeType: 'application/json' }, (uri, { id }) => ({
      contents: [{
        uri: uri.href, mimeType: 'application/json', text: JSON.stringify({ id, templateTest: true, data: `Data for ID: ${id}` }),
      }],
    }));
  if (subscriptions) {
    server.server.setRequestHandler('resources/subscribe', ({ params }) => (subscriptions.add(params.uri), {}));
    server.server.setRequestHandler('resources/unsubscribe', ({ params }) => (subscriptions.delete(params.uri), {}));
  }
}

function registerPrompts(server, era) {
  const say = (value) => user({ type: 'text', text: value });
  server.registerPrompt('test_simple_prompt', { description: 'A simple prompt' },
    () => ({ messages: [say('This is a simple prompt for testing.')] }));
  const argument = (description) =>
    completable(z.string().describe(description), (value) => ['paris', 'park', 'party'].filter((word) => word.startsWith(value)));
  server.registerPrompt('test_prompt_with_arguments', {
    description: 'A prompt with arguments',
    argsSchema: z.object({ arg1: argument('First test argument'), arg2: argument('Second test argument') }),
  }, ({ arg1, arg2 }) => ({ messages: [say(`Prompt with arguments: arg1='${arg1}', arg2='${arg2}'`)] }));
  server.registerPrompt('test_prompt_with_embedded_resource', {
    description: 'A prompt with a resource', argsSchema: z.object({ resourceUri: z.string().describe('URI of the resource to embed') }),
  }, ({ resourceUri }) => ({
    messages: [
      user({
        type: 'resource',
        resource: { uri: resourceUri, mimeType: 'text/plain', text: 'Embedded resource content for testing.' },
      }),
      say('Please process the embedded resource above.'),
    ],
  }));
  server.registerPrompt('test_prompt_with_image', { description: 'A prompt with an image' },
    () => ({ messages: [user(image), say('Please analyze the image above.')] }));
  if (era === 'legacy') return;
  server.registerPrompt('test_input_required_result_prompt', { description: 'A prompt that needs input' }, (ctx) => {
    const content = acceptedContent(ctx.mcpReq.inputResponses, 'user_context');
    if (content) return { messages: [say(`Context: ${content.context}`)] };
    return inputRequired({
      inputRequests: {
        user_context: inputRequired.elicit({
          message: 'What context should the prompt use?', requestedSchema: form({ context: { type: 'string' } }),
        }),
      },
    });
  });
}

// Starts the server on loopback; the endpoint is <url>/mcp.
export async function startBackend({ port = 0 } = {}) {
  const codec = createRequestStateCodec({ key: randomBytes(32) });
  let handler;
  const build = (era, subscriptions) => {
    const server = new McpServer({ name: 'conformance-backend', version: '1.0.0' }, {
      capabilities: {
        logging: {}, completions: {}, prompts: { listChanged: true }, tools: { listChanged: true },
        resources: { subscribe: true, listChanged: true },
      },
      requestState: { verify: codec.verify },
      cacheHints: Object.fromEntries(
        ['tools/list', 'prompts/list', 'resources/list', 'resources/templates/list', 'resources/read', 'server/discover']
          .map((method) => [method, { ttlMs: 1000, cacheScope: 'private' }])),
    });
    registerContentTools(server);
    registerStreamingTools(server, era);
    registerResources(server, subscriptions);
    registerPrompts(server, era);
    if (era === 'legacy') {
      registerLegacyTools(server);
    } else {
      registerMultiRoundTools(server, codec);
      const trigger = (name, notify) => server.registerTool(name, { description: 'Announces a change', inputSchema: z.object({}) },
        () => (notify(), text('Announced.')));
      trigger('test_trigger_tool_change', () => handler.notify.toolsChanged());
      trigger('test_trigger_prompt_change', () => handler.notify.promptsChanged());
    }
    return server;
  };
  handler = dualEraEndpoint((era) => build(era, era === 'legacy' ? new Set() : undefined),
    () => ({ eventStore: new MemoryEventStore(), retryInterval: 500 }));
  const site = await listen(webHandler(async (request) => {
    const refused = hostHeaderValidationResponse(request, localhostAllowedHostnames()) ??
        originValidationResponse(request, localhostAllowedOrigins());
    if (refused) return refused;
    return handler.fetch(request);
  }), port);
  return {
    url: `${site.url}/mcp`,
    close: async () => {
      await handler.close();
      await site.close();
    },
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const backend = await startBackend({ port: Number(process.env.PORT ?? 0) });
  console.log(backend.url);
}
