// Asks a recipe of docs/applications.md for the notes of many tenants at once.
const recipe = require(process.env.TG_RECIPE);

async function main() {
  const requests = JSON.parse(process.env.TG_REQUESTS);
  const ask = async (tenant) => console.log(JSON.stringify([tenant, await recipe.notes(tenant)]));
  await Promise.all(requests.map(ask));
  await recipe.end();
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
