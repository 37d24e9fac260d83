/**
 * The least kernel: it does nothing, for ever. A guest that boots it needs no disk, so that a start of it is a start and
 * nothing else.
 *
 * The form is the oldest that boot loaders take (Linux/x86 boot protocol before 2.00, where offset 0x202 has no `HdrS`):
 * one boot sector, four sectors of set-up code that is entered in real mode at its first byte, then the kernel proper.
 */
const SECTOR_BYTES = 512;
const SETUP_SECTORS = 4;

export const idleKernel = (): Buffer => {
  const image = Buffer.alloc((1 + SETUP_SECTORS + 3) * SECTOR_BYTES);
  image.set([SETUP_SECTORS], 0x1f1);
  image.set([0x55, 0xaa], 0x1fe);
  // cli; hlt; jmp to the hlt
  image.set([0xfa, 0xf4, 0xeb, 0xfd], SECTOR_BYTES);
  return image;
};
