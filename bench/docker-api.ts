/** dockerd as its own client speaks with it: HTTP on its socket, one connection that is kept. */
import { Agent, request } from 'node:http';

export interface DockerApi {
  /** The answer's body. Rejects with what dockerd says of an error. */
  call(method: 'GET' | 'POST' | 'DELETE', path: string, body?: object): Promise<string>;
  close(): void;
}

export const openDockerApi = (socketPath: string): DockerApi => {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  return {
    call: (method, path, body) =>
      new Promise((resolve, reject) => {
        const text = body === undefined ? '' : JSON.stringify(body);
        const headers = { 'content-type': 'application/json', 'content-length': Buffer.byteLength(text) };
        const asked = request({ socketPath, agent, method, path, headers }, (answer) => {
          const chunks: Buffer[] = [];
          answer.on('data', (chunk: Buffer) => chunks.push(chunk));
          answer.on('error', reject);
          answer.on('end', () => {
            const said = Buffer.concat(chunks).toString('utf8');
            if ((answer.statusCode ?? 500) < 400) resolve(said);
            else reject(new Error(`dockerd, asked to ${method} ${path}: ${said.trim()}`));
          });
        });
        asked.on('error', reject);
        asked.end(text);
      }),
    close: () => agent.destroy(),
  };
};
