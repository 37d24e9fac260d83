/* Which file systems take a range of ids under an overlay. What a kernel can do is found by trying. */
#ifndef ROOST_WARDEN_PROBE_H
#define ROOST_WARDEN_PROBE_H

/* Says `squashfs` if a squashfs does, and the path of each directory whose file system does, a line each; why the others do not
 * is said on standard error. Gives the exit status. */
int probe(char *const *directories);

#endif
