/** One line of an authorized_keys file (sshd(8), "AUTHORIZED_KEYS FILE FORMAT"): options, type, key, comment. */
export const sshKeyPattern =
  /^(?:[^\s"]+(?:"[^"]*"[^\s"]*)* )?(?:ssh-|ecdsa-sha2-|sk-)[a-z0-9@.-]+ AAAA[A-Za-z0-9+/]+={0,3}(?: \P{Cc}*)?$/u;
