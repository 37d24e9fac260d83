/** Version of Roost, kept equal to package.json by `npm run check`. */
export const version = { major: 0, minor: 1, micro: 0 } as const;
export const versionText = `${version.major}.${version.minor}.${version.micro}`;
export const packageText = `roost-${versionText}`;
