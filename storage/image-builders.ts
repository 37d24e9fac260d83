/** Several builders as one: each has recipes of its own. */
import type { BuildRequest, ImageBuilder } from './pool.ts';

type Recipe = BuildRequest['recipe'];

export const imageBuilders = (byRecipe: Readonly<Record<Recipe, ImageBuilder>>): ImageBuilder => ({
  refuseUnbuildable: (recipe, signal) => byRecipe[recipe].refuseUnbuildable(recipe, signal),
  build: (request, work) => byRecipe[request.recipe].build(request, work),
  clear: async (directory) => {
    for (const builder of new Set(Object.values(byRecipe))) await builder.clear(directory);
  },
});
