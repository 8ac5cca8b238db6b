/** Administrator page: users, usage, health, rollout and changes. */

import { createRoot } from "react-dom/client";
import { App } from "./App.js";
import "@quota-gate/react/styles.css";
import "../page.css";
import "./admin.css";

createRoot(document.getElementById("root") as HTMLElement).render(<App />);
