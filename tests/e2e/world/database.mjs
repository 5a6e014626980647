// SPDX-License-Identifier: Apache-2.0
// The gateway's databases from beside it: what a test ages, damages, adds or counts there.
import path from 'node:path';
import { DatabaseSync } from 'node:sqlite';

const DAY_MICROS = 24 * 3600 * 1e6;

// Opens the database of a service ('vault', 'registry', 'authn'), whether or not the gateway runs. rows(table, columns, rest) gives the
// columns of each row as text, null as ''; `rest` is what follows the table's name in the statement. exec(sql) runs statements. Times are
// microseconds since 1970, binary columns base64url.
export function openDatabase(gateway, name) {
  if (gateway.postgres) {
    return {
      rows: async (table, columns, rest = '') => {
        const fields = columns.map((column) => `COALESCE(CAST(${column} AS TEXT), '')`).join(" || '\t' || ");
        return (await gateway.postgres.psql(name, `SELECT ${fields} FROM ${table} ${rest}`)).stdout
          .split('\n').filter(Boolean).map((line) => line.split('\t'));
      },
      exec: (sql) => gateway.postgres.load(name, sql),
      close: () => {},
    };
  }
  const database = new DatabaseSync(path.join(gateway.dataDirectory, `${name}.db`));
  // The gateway writes meanwhile.
  database.exec('PRAGMA busy_timeout = 10000');
  return {
    rows: async (table, columns, rest = '') => database.prepare(`SELECT ${columns.join(', ')} FROM ${table} ${rest}`).all()
      .map((row) => columns.map((column) => String(row[column] ?? ''))),
    exec: async (sql) => database.exec(sql),
    close: () => database.close(),
  };
}

// A moment so many days ago, as the databases have it.
export const daysAgo = (days) => Math.floor(Date.now() * 1000 - days * DAY_MICROS);

// The labels of a vault record of which one is a time ("since"), so many days earlier. Labels are a binary column; the text keeps its length.
export function withEarlier(labels, label, days) {
  const bytes = Buffer.from(labels, 'base64url').toString('latin1');
  const at = bytes.indexOf(label);
  const [date] = bytes.slice(at).match(/\d{4}-\d\d-\d\d(?=T)/);
  const earlier = new Date(Date.parse(`${date}T00:00:00Z`) - days * 24 * 3600 * 1000).toISOString().slice(0, 10);
  return Buffer.from(bytes.slice(0, at) + bytes.slice(at).replace(date, earlier), 'latin1').toString('base64url');
}
