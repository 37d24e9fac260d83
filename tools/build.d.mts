/** Types of build.mjs, which has to run before anything is built. */
export declare function buildAll(): Promise<readonly string[]>;
