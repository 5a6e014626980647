// SPDX-License-Identifier: Apache-2.0
// A streamable HTTP endpoint that speaks both eras of MCP: 2026-07-28 statelessly, 2025-11-25 and older with sessions.
import { randomUUID } from 'node:crypto';
import { WebStandardStreamableHTTPServerTransport, createMcpHandler, isInitializeRequest, isLegacyRequest } from './mcp-server-sdk.mjs';

function rpcError(status, code, message) {
  return Response.json({ jsonrpc: '2.0', id: null, error: { code, message } }, { status });
}

// `build(era, authInfo)` makes an McpServer ("modern": one per request; "legacy": one per session). `transportOptions()` are
// further options of a legacy session's transport. Returns { fetch(request, { authInfo }), notify, sessions, close }.
export function dualEraEndpoint(build, transportOptions = () => ({})) {
  const modern = createMcpHandler((context) => build('modern', context.authInfo), { legacy: 'reject' });
  const sessions = new Map();

  const legacy = async (request, options) => {
    const id = request.headers.get('mcp-session-id');
    if (id) return sessions.get(id)?.handleRequest(request, options) ?? rpcError(404, -32001, 'Session not found');
    const body = request.method === 'POST' ? await request.clone().json().catch(() => undefined) : undefined;
    if (!isInitializeRequest(body)) return rpcError(400, -32000, 'Bad Request: Mcp-Session-Id header is required');
    const transport = new WebStandardStreamableHTTPServerTransport({
      sessionIdGenerator: randomUUID,
      onsessioninitialized: (session) => { sessions.set(session, transport); },
      onsessionclosed: (session) => { sessions.delete(session); },
      ...transportOptions(),
    });
    const server = await build('legacy', options?.authInfo);
    await server.connect(transport);
    return transport.handleRequest(request, options);
  };

  return {
    sessions,
    notify: modern.notify,
    close: () => modern.close(),
    fetch: async (request, options) =>
      (await isLegacyRequest(request)) ? legacy(request, options) : modern.fetch(request, options),
  };
}
