/** Random bytes as hexadecimal digits, two for each. The global `crypto` is loaded by those who use it alone. */
export const randomHex = (bytes: number): string =>
  Buffer.from(crypto.getRandomValues(new Uint8Array(bytes))).toString('hex');
