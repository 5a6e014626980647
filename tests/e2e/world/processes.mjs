// SPDX-License-Identifier: Apache-2.0
// Child processes with their output in files. Only what was started here is ever ended, by its own pid.
import { spawn } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { readFile } from 'node:fs/promises';

const running = new Set();
process.on('exit', () => { for (const child of running) child.kill('SIGKILL'); });

// `logFile` gets standard output and error, appended. Options as of child_process.spawn.
export function start(command, args, { logFile, ...options }) {
  const log = openSync(logFile, 'a', 0o600);
  const child = spawn(command, args, { stdio: ['ignore', log, log], ...options });
  closeSync(log);
  running.add(child);
  const ended = new Promise((resolve) => {
    child.once('error', (error) => { running.delete(child); resolve({ error }); });
    child.once('exit', (code, signal) => { running.delete(child); resolve({ code, signal }); });
  });
  return {
    child, ended, logFile,
    get alive() { return running.has(child); },
    kill: async (signal = 'SIGKILL') => {
      child.kill(signal);
      return ended;
    },
    // SIGTERM, and SIGKILL when it has not ended after `graceMs`.
    stop: async (graceMs = 12000) => {
      if (!running.has(child)) return ended;
      child.kill('SIGTERM');
      const timer = setTimeout(() => child.kill('SIGKILL'), graceMs);
      const result = await ended;
      clearTimeout(timer);
      return result;
    },
    log: () => readFile(logFile, 'utf8'),
  };
}

// Runs a command to its end; throws with its output unless it exits with 0.
export function run(command, args, { input, ok = (code) => code === 0, ...options } = {}) {
  return new Promise((resolve, reject) => {
    const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], ...options });
    let stdout = '';
    let stderr = '';
    child.stdout.on('data', (chunk) => { stdout += chunk; });
    child.stderr.on('data', (chunk) => { stderr += chunk; });
    child.on('error', reject);
    child.on('close', (code) => ok(code) ? resolve({ code, stdout, stderr })
      : reject(new Error(`${command} ${args.join(' ')} exited with ${code}:\n${stdout}${stderr}`)));
    child.stdin.end(input);
  });
}
